package reach

import "strings"

// Mirror replaces the prefix From of an address by To.
type Mirror struct{ From, To string }

// Mirrors replace the beginnings of addresses. Where several match, the longest wins.
type Mirrors []Mirror

// Of returns what an address is replaced by, and "" where nothing replaces it.
func (all Mirrors) Of(address string) string {
	best := Mirror{}
	for _, m := range all {
		if strings.HasPrefix(address, m.From) && len(m.From) > len(best.From) {
			best = m
		}
	}
	if best.From == "" {
		return ""
	}
	return best.To + strings.TrimPrefix(address, best.From)
}
