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

func unmapCode() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if from, to, ok := unwritable(line, self); ok {
			// An advice that is not taken costs memory and nothing else.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}

// unwritable reads a line of /proc/self/maps: "from-to perms offset device inode
// path". It reports whether the range maps the file and cannot be written to, since
// dropping what was written would lose it.
func unwritable(line, file string) (from, to uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != file || len(fields[1]) != 4 || fields[1][1] != '-' {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(fields[0], "-")
	start, err1 := strconv.ParseUint(first, 16, 64)
	end, err2 := strconv.ParseUint(last, 16, 64)
	return uintptr(start), uintptr(end), ok && err1 == nil && err2 == nil && start < end
}
