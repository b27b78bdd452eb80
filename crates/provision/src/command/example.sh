#!/bin/sh
# Keeps each workspace as a folder below $WORKSPACES.
set -eu
place=$WORKSPACES/$MUSTERBEAT_WORKSPACE_ID
case $MUSTERBEAT_TRANSITION in
start)
    if [ "$MUSTERBEAT_SOURCE" != plain ]; then
        echo "there is no template $MUSTERBEAT_SOURCE" >&2
        exit 65
    fi
    # The same when it is done again: a folder that is there stays as it is.
    mkdir -p "$place"
    printf '%s\n' "$MUSTERBEAT_PARAMETERS" >"$place/parameters.json"
    echo "$MUSTERBEAT_WORKSPACE_NAME is ready"
    ;;
claim)
    # What bears the name of the prebuild is made anew, which takes time in each claim.
    printf '%s\n' "$MUSTERBEAT_WORKSPACE_NAME" >"$place/hostname"
    echo "::replacement hostname"
    ;;
stop) ;;
delete) rm -rf "$place" ;;
esac
