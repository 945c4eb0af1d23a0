// Package testkit is the stage on which tests play: real servers rather than mocks. It starts
// the same control plane that people run, from the localkube executable, one for the tests of a
// package or one for a single test, and takes it down with the test process, however that ends.
//
// What takes large libraries is in packages of its own below it, so that only the tests that use it are linked with them.
package testkit
