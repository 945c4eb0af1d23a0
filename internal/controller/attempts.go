package controller

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/plan"
)

// attempt is what is remembered of a unit between two reconciles: enough to
// know whether trying again makes sense yet. It is lost with the process, which
// costs one more attempt.
type attempt struct {
	// inputs identifies what was attempted: generation, artifact, requests.
	inputs string
	// station is the cluster that the unit was last delivered to.
	station *station
	// due says that the first run with these inputs is still to come.
	due bool
	// failures counts failed attempts with these inputs in a row.
	failures int
	// retryAt is when a failed attempt may be repeated.
	retryAt time.Time
	// mayRead are the inputs with which the account of the unit was found to be allowed
	// to read all objects whose health the unit asks for.
	mayRead string
	// checked is when what only a dry run can tell was last looked at.
	checked time.Time
	// began is when work on these inputs began.
	began time.Time
	// waitingSince is when the wait for health began; zero when none is on.
	waitingSince time.Time
	// tellAt is how long that wait must have lasted before the status tells, or tells
	// again, what is waited for.
	tellAt time.Duration
	// late says that the wait for health ran out.
	late bool
	// failedBefore says that one ran out with these inputs: while it is tried again, the
	// status keeps saying so.
	failedBefore bool
	// blockedSince is when the unit began to wait for its source or for a
	// dependency; zero when it does not.
	blockedSince time.Time
	// wanting says that the last one failed for want of something on the cluster, and
	// cameBy how much had come when it began.
	wanting bool
	cameBy  uint64
	// lacks is the failure that says what was wanting.
	lacks string
	// pendingSince is when the wait for something that is not possible yet began; zero
	// when none is on. stuck says that it ran out.
	pendingSince time.Time
	stuck        bool
	// healAt is when an object that somebody keeps changing is healed again; zero
	// when there is none. contested names those that an event told of.
	healAt    time.Time
	contested string
	// changed says that something changed since the last success, so that the
	// next one is worth an event.
	changed bool
	// changes says what was changed since then, for that event.
	changes []string
}

// begin notes new inputs; the failures with the old ones no longer count.
func (a *attempt) begin(inputs string, now time.Time) {
	*a = attempt{inputs: inputs, due: true, began: now, changed: a.changed, changes: a.changes, checked: a.checked, contested: a.contested, station: a.station}
}

// failed notes a failure and returns how long to wait before the next attempt:
// from a second doubling up to the retry interval, or that interval at once
// where only a change of the input can help.
func (a *attempt) failed(now time.Time, terminal bool, retryInterval time.Duration) time.Duration {
	retryInterval = max(retryInterval, shortestWait)
	wait := time.Second << min(a.failures, 16)
	if terminal || wait > retryInterval {
		wait = retryInterval
	}
	a.failures++
	a.retryAt = now.Add(wait)
	return wait
}

// recheck reports whether it is time to look again at what only a dry run can
// tell. What happened meanwhile for other reasons does not put it off.
func (a *attempt) recheck(now time.Time, interval time.Duration) bool {
	return now.Sub(a.checked) >= interval
}

// barred returns how long a failed attempt may not be repeated yet.
func (a *attempt) barred(now time.Time) time.Duration {
	if !a.healAt.IsZero() && !now.Before(a.healAt) {
		return 0
	}
	return a.retryAt.Sub(now)
}

// untilHeal shortens a wait to the next healing that will be due. One that is due
// already and was not come to waits for the same as everything else of the unit.
func (a *attempt) untilHeal(now time.Time, wait time.Duration) time.Duration {
	if !a.healAt.After(now) {
		return wait
	}
	return min(wait, a.healAt.Sub(now))
}

// contest notes when objects that somebody keeps changing are healed again, and returns
// who does, once for every healing that has to wait.
func (a *attempt) contest(p *plan.Plan, now time.Time) (words string) {
	if p == nil || p.HealAfter == 0 {
		a.healAt, a.contested = time.Time{}, ""
		return ""
	}
	a.healAt = now.Add(p.HealAfter)
	who, words := contestedIn(p)
	if who == a.contested {
		return ""
	}
	a.contested = who
	return words
}

// retry lets the next attempt be made at once, and counts failures anew.
func (a *attempt) retry() { a.failures, a.retryAt = 0, time.Time{} }

// shortestWait keeps an interval of 0s, which the API accepts, from making a unit
// run without a pause, or a source never again.
const shortestWait = time.Second

// attempts holds the attempts of all units.
type attempts struct {
	mu     sync.Mutex
	byUnit map[types.NamespacedName]*attempt // guarded by mu; an attempt belongs to the reconcile of its unit
	// drifted holds the units of which an object drifted since they last ran, or
	// something that they refer to changed.
	drifted map[types.NamespacedName]bool // guarded by mu
	// wanting holds the units that failed for want of something on the cluster,
	// such as a namespace or a kind, which anybody may bring, with the failure.
	wanting map[types.NamespacedName]string // guarded by mu
	// arrivals counts what came that units may want, and recent is the last of it, each
	// at its number modulo the length.
	arrivals uint64                   // guarded by mu
	recent   [rememberedArrivals]news // guarded by mu
}

func newAttempts() *attempts {
	return &attempts{
		byUnit: map[types.NamespacedName]*attempt{}, drifted: map[types.NamespacedName]bool{},
		wanting: map[types.NamespacedName]string{},
	}
}

func (a *attempts) of(unit types.NamespacedName) *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byUnit[unit] == nil {
		a.byUnit[unit] = &attempt{}
	}
	return a.byUnit[unit]
}

func (a *attempts) forget(unit types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byUnit, unit)
	delete(a.drifted, unit)
	delete(a.wanting, unit)
}

func (a *attempts) drift(unit types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drifted[unit] = true
}

// takeDrift reports whether the unit drifted since it was last asked.
func (a *attempts) takeDrift(unit types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	drifted := a.drifted[unit]
	delete(a.drifted, unit)
	return drifted
}

// rememberedArrivals is how many arrivals are told apart. A unit that more of them
// came by than that may have missed what it wants, and tries again.
const rememberedArrivals = 256

// news are the words by which something that came is known: a failure that wants it
// holds all of them. Without words anything may have come.
type news []string

func (n news) concerns(failure string) bool {
	return !slices.ContainsFunc(n, func(word string) bool { return !strings.Contains(failure, word) })
}

// want notes the failure of a unit for want of something on the cluster; "" means
// that it wants nothing.
func (a *attempts) want(unit types.NamespacedName, lacks string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if lacks != "" {
		a.wanting[unit] = lacks
	} else {
		delete(a.wanting, unit)
	}
}

// failedFor notes whether something may be wanting that others bring to the cluster: when
// it comes, the attempt is repeated. Without an error nothing is.
func (a *attempts) failedFor(unit types.NamespacedName, at *attempt, err error) {
	at.wanting, at.lacks = errors.Is(err, failure.Of(failure.NotFound)) || errors.Is(err, failure.Of(failure.Denied)), ""
	if at.wanting {
		at.lacks = err.Error()
	}
	a.want(unit, at.lacks)
}

// helped reports whether something came that the last attempt failed for want of.
func (a *attempts) helped(at *attempt) bool {
	if !at.wanting {
		return false
	}
	came, now := a.came(at.cameBy, at.lacks)
	if !came {
		at.cameBy = now
	}
	return came
}

// succeeded forgets what failures left behind.
func (a *attempts) succeeded(unit types.NamespacedName, at *attempt) {
	*at = attempt{
		inputs: at.inputs, began: at.began, checked: at.checked, station: at.station, mayRead: at.mayRead,
		healAt: at.healAt, contested: at.contested,
	}
	a.want(unit, "")
}

// arrived notes that something came which units may want, and returns those that do.
func (a *attempts) arrived(n news) []types.NamespacedName {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recent[a.arrivals%rememberedArrivals] = n
	a.arrivals++
	var units []types.NamespacedName
	for unit, lacks := range a.wanting {
		if n.concerns(lacks) {
			units = append(units, unit)
		}
	}
	return units
}

// cameBy returns how much has come so far.
func (a *attempts) cameBy() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrivals
}

// came reports whether something that a failure wants has come since this much had,
// and returns how much has now.
func (a *attempts) came(since uint64, lacks string) (came bool, now uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.arrivals-since > rememberedArrivals {
		return true, a.arrivals
	}
	for n := since; n < a.arrivals && !came; n++ {
		came = a.recent[n%rememberedArrivals].concerns(lacks)
	}
	return came, a.arrivals
}
