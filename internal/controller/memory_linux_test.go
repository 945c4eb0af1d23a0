package controller

import "testing"

func TestUnwritable(t *testing.T) {
	for _, tc := range []struct {
		name, reason, line string
		want               bool
	}{
		{"code", "it can be read again from the file", "00400000-02aa3000 r-xp 00000000 fe:00 131 /bin/engine", true},
		{"constants", "it can be read again from the file", "02aa3000-0589d000 r--p 026a3000 fe:00 131 /bin/engine", true},
		{"variables", "what was written is nowhere else", "0589d000-059fc000 rw-p 0549d000 fe:00 131 /bin/engine", false},
		{"another file", "nobody said that it stays as it is", "7f0000000000-7f0000001000 r--p 00000000 fe:00 7 /data/pack", false},
		{"memory", "there is no file behind it", "c000000000-c004000000 r--p 00000000 00:00 0", false},
		{"turned round", "a length below zero would be a huge one", "02aa3000-00400000 r-xp 00000000 fe:00 131 /bin/engine", false},
		{"no numbers", "guessing an address is not safe", "x-y r-xp 00000000 fe:00 131 /bin/engine", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, got := unwritable(tc.line, "/bin/engine"); got != tc.want {
				t.Errorf("got %v: %s", got, tc.reason)
			}
		})
	}
}

// The process goes on, and what it needs comes back.
func TestUnmapCode(t *testing.T) {
	before := mappedFiles()
	if before == 0 {
		t.Fatal("nothing of the executable is said to be resident, but it runs")
	}
	unmapCode()
	if after := mappedFiles(); after >= before {
		t.Errorf("%d bytes of files were resident, and %d are now", before, after)
	}
}
