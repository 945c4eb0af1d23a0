// Package plan is what the fixture must not import.
package plan
