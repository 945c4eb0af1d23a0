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

// What comes concerns those whose failure names it, also when it came while they
// were at work.
func TestArrivalsConcernWhoeverWantsThem(t *testing.T) {
	const lacksNamespace = `apply ConfigMap/shop/web: namespaces "shop" not found`
	const lacksKind = `build: kind Widget in example.com/v1: the cluster does not serve this kind`
	for _, row := range []struct {
		name, reason string
		came         news
		lacks        string
		want         bool
	}{
		{"its namespace", "that is what it lacks", news{"shop"}, lacksNamespace, true},
		{"another namespace", "it changes nothing for it", news{"blog"}, lacksNamespace, false},
		{"its kind", "that is what it lacks", news{"example.com"}, lacksKind, true},
		{"another kind", "it changes nothing for it", news{"example.org"}, lacksKind, false},
		{"one word of two", "every namespace gets such an account", news{"blog", "web"}, lacksNamespace, false},
		{"anything", "nobody knows what came", nil, lacksKind, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newAttempts()
			unit := reading("u").NamespacedName
			a.want(unit, row.lacks)
			before := a.cameBy()
			if got := len(a.arrived(row.came)) == 1; got != row.want {
				t.Errorf("woken: %t, want %t: %s", got, row.want, row.reason)
			}
			came, now := a.came(before, row.lacks)
			if came != row.want || now != before+1 {
				t.Errorf("it came meanwhile: %t at %d, want %t: %s", came, now, row.want, row.reason)
			}
			for range rememberedArrivals {
				a.arrived(news{"unrelated"})
			}
			if came, _ := a.came(before, row.lacks); !came {
				t.Error("more came than is remembered, and it is taken for certain that nothing of it mattered")
			}
			a.want(unit, "")
			if len(a.arrived(nil)) != 0 {
				t.Error("it wants nothing and is woken")
			}
		})
	}
}
