package controller

import (
	"testing"
	"time"
)

func TestAttemptWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tc := range []struct {
		name, reason string
		got, want    time.Duration
	}{
		{"healing ahead", "it comes before the rest", (&attempt{healAt: now.Add(time.Second)}).untilHeal(now, time.Hour), time.Second},
		{"healing overdue", "the unit waits for something else: asking again at once cannot help", (&attempt{healAt: now.Add(-time.Second)}).untilHeal(now, time.Hour), time.Hour},
		{"no healing", "", (&attempt{}).untilHeal(now, time.Hour), time.Hour},
		{"first failure", "", (&attempt{}).failed(now, false, time.Hour), time.Second},
		{"third failure", "", (&attempt{failures: 2}).failed(now, false, time.Hour), 4 * time.Second},
		{"terminal", "only another input helps", (&attempt{}).failed(now, true, time.Hour), time.Hour},
		{"interval of zero", "the API accepts it; no pause would be a busy loop", (&attempt{}).failed(now, true, 0), time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.got != tc.want {
				t.Errorf("%s: waits %s, want %s", tc.reason, tc.got, tc.want)
			}
		})
	}
}
