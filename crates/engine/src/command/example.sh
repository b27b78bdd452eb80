#!/bin/sh
# Answers with the size of its prompt, in pieces.
bytes=$(($(wc -c)))
echo '{"type": "part", "part": {"type": "text", "text": "I read "}}'
echo '{"type": "part", "part": {"type": "text", "text": "'$bytes' bytes."}}'
echo '{"type": "message", "content": "I read '$bytes' bytes."}'
