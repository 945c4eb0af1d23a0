package controller

import "testing"

func TestUnchanged(t *testing.T) {
	for _, tc := range []struct {
		name, reason, header, anonymous string
		want                            int
	}{
		{"code", "it can be read again from the file", "00400000-02aa3000 r-xp 00000000 fe:00 131 /bin/engine", "0", 1},
		{"constants", "they can be read again from the file", "02aa3000-0589d000 r--p 026a3000 fe:00 131 /bin/engine", "0", 1},
		{"what a loader changed", "what it wrote is nowhere else", "02aa3000-0589d000 r--p 026a3000 fe:00 131 /bin/engine", "8", 0},
		{"variables", "what is written to them is nowhere else", "0589d000-059fc000 rw-p 0549d000 fe:00 131 /bin/engine", "0", 0},
		{"another file", "nobody said that it stays as it is", "7f0000000000-7f0000001000 r--p 00000000 fe:00 7 /data/pack", "0", 0},
		{"memory", "there is no file behind it", "c000000000-c004000000 r--p 00000000 00:00 0", "0", 0},
		{"turned round", "a length below zero would be a huge one", "02aa3000-00400000 r-xp 00000000 fe:00 131 /bin/engine", "0", 0},
		{"no numbers", "guessing an address is not safe", "x-y r-xp 00000000 fe:00 131 /bin/engine", "0", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			smaps := tc.header + "\nRss: 4 kB\nAnonymous: " + tc.anonymous + " kB\nVmFlags: rd\n"
			if got := unchanged(smaps, "/bin/engine"); len(got) != tc.want {
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
