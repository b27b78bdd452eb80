//! Data folders that cannot be used, and what is said about it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use musterbeat_embedded::{Server, StartError, running};

use crate::helper::{Place, give_away, is_root, options};

#[test]
fn a_folder_of_someone_else_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.data_dir()).unwrap();
    fs::write(place.data_dir().join("thesis.txt"), "").unwrap();
    let before = fs::metadata(place.data_dir()).unwrap().permissions();
    assert!(matches!(place.start_error(), StartError::Foreign { .. }));
    assert_eq!(fs::metadata(place.data_dir()).unwrap().permissions(), before);
}

#[test]
fn a_folder_below_a_closed_one_is_explained() {
    if !is_root() {
        // Only root hands the server to another user; everyone else meets plain permissions.
        return;
    }
    let place = Place::new();
    let closed = place.root().join("home");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Server::start(&options(closed.join("data")), &|_| {}).unwrap_err();
    let StartError::Unreachable { barrier, .. } = &error else { panic!("{error}") };
    assert_eq!(*barrier, closed.canonicalize().unwrap());
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[test]
fn a_database_of_another_major_is_not_touched() {
    let place = Place::new();
    place.start().stop().unwrap();
    let version = place.pgdata().join("PG_VERSION");
    fs::write(&version, "14\n").unwrap();
    let binaries =
        musterbeat_embedded::find(&place.options().source, &place.options().cache_dir, &|_| {})
            .unwrap();
    let mut options = place.options();
    options.source = musterbeat_embedded::Source::Folder(binaries.bin_dir);
    let error = Server::start(&options, &|_| {}).unwrap_err();
    assert!(matches!(error, StartError::OtherMajor { data_major: 14, .. }), "{error}");
    let found = format!("holds PostgreSQL {}", binaries.version);
    assert!(error.to_string().contains(&found), "{error}");
    options.source = musterbeat_embedded::Source::Installed;
    let error = Server::start(&options, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("no usable binaries of PostgreSQL 14"), "{error}");
}

#[test]
fn a_lost_password_is_explained() {
    let place = Place::new();
    place.start().stop().unwrap();
    fs::remove_file(place.data_dir().join("password")).unwrap();
    assert!(matches!(place.start_error(), StartError::PasswordLost { .. }));
}

#[test]
fn a_folder_that_is_no_database_is_explained() {
    let place = Place::new();
    place.start().stop().unwrap();
    fs::remove_file(place.pgdata().join("PG_VERSION")).unwrap();
    assert!(matches!(place.start_error(), StartError::Damaged { .. }));
}

#[test]
fn remains_of_an_interrupted_creation_are_cleared() {
    let place = Place::new();
    fs::create_dir(place.data_dir()).unwrap();
    fs::write(place.data_dir().join("lock"), "").unwrap();
    let remains = place.data_dir().join("postgres.new.1");
    fs::create_dir_all(remains.join("base")).unwrap();
    give_away(&remains);
    fs::write(place.data_dir().join("password"), "").unwrap();
    place.start();
    assert!(!remains.exists());
}

#[test]
fn a_link_in_the_folder_leads_nobody_out_of_it() {
    let place = Place::new();
    place.start().stop().unwrap();
    for name in ["lock", "password", "postgres", "postgres.log", "run"] {
        let link = place.data_dir().join(name);
        let elsewhere = place.root().join("elsewhere");
        fs::rename(&link, &elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(&elsewhere, &link).unwrap();
        let error = place.start_error();
        assert!(
            matches!(&error, StartError::Linked { path } if path.ends_with(name)),
            "{name}: {error}"
        );
        assert_eq!(mode(&elsewhere), 0o755, "{name}");
        fs::remove_file(&link).unwrap();
        fs::rename(&elsewhere, &link).unwrap();
    }
    fs::set_permissions(place.pgdata(), fs::Permissions::from_mode(0o700)).unwrap();
    place.start();
}

#[test]
fn a_linked_password_is_not_read_for_a_client() {
    let place = Place::new();
    let _server = place.start();
    let link = place.data_dir().join("password");
    let elsewhere = place.root().join("elsewhere");
    fs::rename(&link, &elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    let error = running(&place.data_dir()).unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
}

#[test]
fn a_password_file_that_leads_elsewhere_is_not_followed() {
    let place = Place::new();
    fs::create_dir(place.data_dir()).unwrap();
    fs::write(place.data_dir().join("lock"), "").unwrap();
    let elsewhere = place.root().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, place.data_dir().join("password")).unwrap();
    assert!(matches!(place.start_error(), StartError::Linked { .. }));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
