// Package rules holds the test that asserts which room may import which. The
// table in rules_test.go is the house's floor plan: a new room is added there,
// with the floor that it stands on.
package rules
