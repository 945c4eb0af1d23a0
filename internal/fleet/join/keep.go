package join

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Keeper renews an agent's credentials for as long as it runs. What time it is it asks the hub, and from
// then on it measures how much has passed: what the clock here says does not matter.
type Keeper struct {
	Store Store
	// Clock measures; nil means that of the machine.
	Clock clock.Clock
	// Retry is how long to wait after the hub did not answer; 0 means a minute.
	Retry time.Duration
	// Renewed is called with credentials that were renewed and stored.
	Renewed func(*Credentials)
	// Failed is called with what keeps the hub from answering, or the member from storing.
	Failed func(error)
}

// asleep is the longest that is waited without asking the hub what time it is: a machine that is
// suspended measures nothing.
const asleep = 12 * time.Hour

// Run keeps credentials until ctx is done, or until the hub says that it does not know the agent any more: the error is
// then one of kind failure.Denied, and only joining again helps.
func (k Keeper) Run(ctx context.Context, c *Credentials) error {
	if k.Clock == nil {
		k.Clock = clock.RealClock{}
	}
	if k.Retry == 0 {
		k.Retry = time.Minute
	}
	for {
		next, err := k.step(ctx, c)
		if err == nil {
			c = next
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failure.KindOf(err) == failure.Denied {
			return err
		}
		if k.Failed != nil {
			k.Failed(err)
		}
		if err := k.wait(ctx, k.Retry); err != nil {
			return err
		}
	}
}

// step waits until credentials are to be renewed, for a while at most, and returns those that are to be kept then.
func (k Keeper) step(ctx context.Context, c *Credentials) (*Credentials, error) {
	now, err := HubTime(ctx, c.Config())
	if err != nil {
		return nil, err
	}
	left := c.RenewIn(now.Sub(c.NotBefore))
	if err := k.wait(ctx, min(left, asleep)); err != nil {
		return nil, err
	}
	if left > asleep {
		return c, nil
	}
	renewed, err := Renew(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := k.Store.Save(ctx, renewed); err != nil {
		return nil, err
	}
	if k.Renewed != nil {
		k.Renewed(renewed)
	}
	return renewed, nil
}

func (k Keeper) wait(ctx context.Context, d time.Duration) error {
	t := k.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C():
		return nil
	}
}

// HubTime asks a hub what time it is, in the name of whoever the configuration is for. An error of kind failure.Denied
// says that the hub does not know who is asking.
func HubTime(ctx context.Context, config *rest.Config) (time.Time, error) {
	failed := func(kind failure.Kind, err error) error {
		return &failure.Error{Op: "ask the time of the hub", Kind: kind, Object: config.Host, Err: err}
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return time.Time{}, failed(failure.Invalid, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/version", http.NoBody)
	if err != nil {
		return time.Time{}, failed(failure.Invalid, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return time.Time{}, failed(failure.Unavailable, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK, http.StatusForbidden: // it knows who is asking
	case http.StatusUnauthorized:
		return time.Time{}, failed(failure.Denied, fmt.Errorf("it does not accept the certificate: %s", response.Status))
	default:
		return time.Time{}, failed(failure.Unavailable, fmt.Errorf("it answers %s", response.Status))
	}
	now, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return time.Time{}, failed(failure.Unavailable, fmt.Errorf("its answer has no date: %w", err))
	}
	return now, nil
}
