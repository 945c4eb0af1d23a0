package controller

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// codePages are the pages of the executable itself, code and constants. Most of them
// are needed once, to set up libraries that few fleets use: the clouds' among them.
type codePages struct{ left int }

// worthwhile is how many bytes of files have to be mapped more than after the last
// time: what is in use comes back at once, and is not worth asking for again.
const worthwhile = 16 << 20

// release lets go of the pages. They are clean and unwritable, so that what is needed
// again comes back from the file, or from the page cache, at the next use.
func (c *codePages) release() {
	if mappedFiles()-c.left < worthwhile {
		return
	}
	unmapCode()
	c.left = mappedFiles()
}

// mappedFiles returns how many bytes of files are resident, 0 where that is unknown.
func mappedFiles() int {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 3 {
		return 0
	}
	pages, err := strconv.Atoi(fields[2])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// unmapCode drops the pages of the executable that its file still holds.
func unmapCode() {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, r := range unchanged(string(smaps), self) {
		// An advice that is not taken costs memory and nothing else.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED)
	}
}

// addresses are a range of memory.
type addresses struct{ from, to uintptr }

// unchanged returns the ranges in /proc/self/smaps that map the file, cannot be
// written to and never were: a loader changes pages before it makes them read-only,
// and what it wrote is nowhere else. The kernel counts such pages as anonymous.
func unchanged(smaps, file string) []addresses {
	var found []addresses
	var last addresses
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			last = rangeOf(fields, file)
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && last.from < last.to:
			found = append(found, last)
		}
	}
	return found
}

// rangeOf reads "from-to perms offset device inode path"; it is empty where that is
// not the file, or can be written to.
func rangeOf(fields []string, file string) addresses {
	if len(fields) != 6 || fields[5] != file || len(fields[1]) != 4 || fields[1][1] != '-' {
		return addresses{}
	}
	first, last, _ := strings.Cut(fields[0], "-")
	from, err1 := strconv.ParseUint(first, 16, 64)
	to, err2 := strconv.ParseUint(last, 16, 64)
	if err1 != nil || err2 != nil {
		return addresses{}
	}
	return addresses{uintptr(from), uintptr(to)}
}
