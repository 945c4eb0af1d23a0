package template

import (
	"errors"
	"strings"
)

// part is a piece of a string: text, or an expression.
type part struct {
	text       string
	expression bool
}

const (
	opening = "${"
	escaped = "$${"
)

// split takes a string apart. An expression ends at the brace that closes it: braces in
// the expression's own maps and strings do not.
func split(s string) ([]part, error) {
	var parts []part
	var text strings.Builder
	for s != "" {
		dollar := strings.IndexByte(s, '$')
		if dollar < 0 {
			break
		}
		text.WriteString(s[:dollar])
		s = s[dollar:]
		switch {
		case strings.HasPrefix(s, escaped):
			text.WriteString(opening)
			s = s[len(escaped):]
		case strings.HasPrefix(s, opening):
			end := closing(s[len(opening):])
			if end < 0 {
				return nil, errors.New("there is a ${ without its }; write $${ where a literal ${ is meant")
			}
			if text.Len() > 0 {
				parts = append(parts, part{text: text.String()})
				text.Reset()
			}
			parts = append(parts, part{text: s[len(opening) : len(opening)+end], expression: true})
			s = s[len(opening)+end+1:]
		default:
			text.WriteByte('$')
			s = s[1:]
		}
	}
	text.WriteString(s)
	if text.Len() > 0 || len(parts) == 0 {
		parts = append(parts, part{text: text.String()})
	}
	return parts, nil
}

// quoted is how much of an expression a message shows.
const quoted = 120

// quote shows an expression in a message.
func quote(expression string) string {
	line := strings.Join(strings.Fields(expression), " ")
	if runes := []rune(line); len(runes) > quoted {
		line = string(runes[:quoted]) + "…"
	}
	return opening + line + "}"
}

// closing returns where the brace is that ends the expression at the beginning of s, and
// -1 where there is none.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		case '\'', '"':
			length := literal(s[i:], raw(s[:i]))
			if length < 0 {
				return -1
			}
			i += length - 1
		case '/':
			if strings.HasPrefix(s[i:], "//") {
				line := strings.IndexByte(s[i:], '\n')
				if line < 0 {
					return -1
				}
				i += line
			}
		}
	}
	return -1
}

// raw says whether a string literal that follows before is a raw one, r'…', in which
// a backslash is nothing special.
func raw(before string) bool {
	prefix := before[len(strings.TrimRight(before, "rRbB")):]
	word := strings.TrimSuffix(before, prefix)
	if word != "" && name(word[len(word)-1]) {
		return false
	}
	return strings.ContainsAny(prefix, "rR")
}

func name(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// literal returns the length of the string literal that s begins with, and -1 where it
// does not end.
func literal(s string, raw bool) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\' && !raw:
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		}
	}
	return -1
}
