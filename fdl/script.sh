#!/bin/sh
# Written by `buoy fdl`. OSCAR's supervisor runs this for every object that arrives: INPUT_FILE_PATH is the
# object, what is left in TMP_OUTPUT_DIR is uploaded. `exec`, so that buoy's exit code is the script's.
set -eu
exec buoy function
