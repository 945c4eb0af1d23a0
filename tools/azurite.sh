#!/usr/bin/env bash
# Installs Azurite, Microsoft's emulator of Azure's storage, for the tests: azurite.sh FILE
# It takes node and npm. Scripts of packages are not run.
set -euo pipefail
out=$(realpath -m "${1:?usage: azurite.sh FILE}")
version=3.34.0 # the last one for Node 20

npm install --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$out.d" "azurite@$version"
cat >"$out" <<END
#!/bin/sh
exec node "$out.d/node_modules/azurite/dist/src/blob/main.js" "\$@"
END
chmod +x "$out"
