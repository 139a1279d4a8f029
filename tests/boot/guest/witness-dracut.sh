#!/bin/sh
# The last moment of an image of dracut without systemd.
/witness/witness record initrd "$NEWROOT"
