// The toolkit's own command line, which the tests drive Bowline with. This file
// pins its version; build.sh builds it with the dependencies that it pins itself.
module github.com/bowline-dev/bowline/tools/flux

go 1.26.0

require github.com/fluxcd/flux2/v2 v2.9.5
