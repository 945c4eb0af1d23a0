// Package object breaks a rule on purpose.
package object

import _ "github.com/bowline-dev/bowline/internal/plan"
