package controller

// Priorities of a unit in the queue, besides controller-runtime's own: what
// people wait for goes first.
const (
	// urgent: an object drifted, a build has changed, somebody asked.
	urgent = 20
	// soon: something that the unit waits for happened.
	soon = 10
	// routine: only the revision moved.
	routine = 0
	// stranded: all that the unit can do is to tell that its cluster does not answer.
	stranded = -1
)
