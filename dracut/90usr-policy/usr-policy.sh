#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0

# Images without systemd. dracut sources this file, sets NEWROOT and goes on whatever the program answers.
/usr/lib/usr-policy/usr-policy-generator apply --root "$NEWROOT" --stage late
