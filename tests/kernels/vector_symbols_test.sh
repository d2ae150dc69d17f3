#!/bin/sh
# The objects built for newer CPUs must define no weak symbol: the linker might keep their copy of a
# shared inline function, and an older CPU would run it. Takes the archive of the kernels.
nm "$1" | awk '
  /:$/ { inside = /^vector_avx/; if (inside) objects++ }
  inside && NF == 3 && $2 ~ /^[WVu]$/ { print "weak: " $3; found = 1 }
  END { exit found || objects != 2 }'
