package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// progress shows Kustomizations converging: on a terminal as a list that is
// painted over, elsewhere as a line per change.
type progress struct {
	app     *app
	mu      sync.Mutex
	live    bool
	names   []string
	states  map[string]state
	shown   map[string]string
	painted int // lines on the screen that the next painting goes over
}

// converge watches until the fleet is ready. When it is not in time, or cannot
// be without a change, it says for each object why.
func (b *bringUp) converge(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.options.timeout, errTimeout)
	defer cancel()
	printf(b.Out, "\n")
	p := &progress{app: b.app, live: fancy(b.Out), states: map[string]state{}, shown: map[string]string{}}
	ended := make(chan struct{})
	watching, stop := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		// What becomes of clusters is told along the way; the fleet's own unit is what decides.
		_ = b.cluster.follow(watching, fleetClusterKind().newList, follower{changed: func(ch change) (bool, error) {
			p.update(ch, "cluster "+ch.object.GetName(), progressOf(ch.object))
			return false, nil
		}})
	}()
	k := kustomizationKind()
	var done, stalled bool
	err := b.cluster.follow(ctx, k.newList, follower{changed: func(ch change) (bool, error) {
		s := k.state(ch.object)
		p.update(ch, ch.object.GetNamespace()+"/"+ch.object.GetName(), s)
		if ch.object.GetName() == fleetName && ch.object.GetNamespace() == platformNamespace && settled(ch.object, s) {
			done = s.ready().Status == metav1.ConditionTrue
			stalled = s.stalled()
		}
		return done || stalled, nil
	}})
	stop()
	<-ended
	if done {
		return b.showReady(context.WithoutCancel(ctx), p)
	}
	if !stalled && !errors.Is(context.Cause(ctx), errTimeout) {
		return err
	}
	return b.causes(context.WithoutCancel(ctx), stalled)
}

// progressOf is the state of a cluster in words that change as it comes to be.
func progressOf(o client.Object) state {
	c, ok := o.(*fleetv1.FleetCluster)
	if !ok {
		return state{}
	}
	s := fleetClusterKind().state(c)
	s.conditions = slices.Clone(s.conditions)
	for i := range s.conditions {
		if s.conditions[i].Type == "Ready" && c.Status.Phase != "" {
			s.conditions[i].Message = string(c.Status.Phase) + ": " + s.conditions[i].Message
		}
	}
	s.outcome = "ready, " + rollUpWord(c)
	// Others than the fleet's own room may be the first to write a status.
	s.observed = c.Generation
	return s
}

// showReady says that the fleet is ready, and prints its clusters, where it has some. What followed them may have been behind.
func (b *bringUp) showReady(ctx context.Context, p *progress) error {
	took := time.Since(b.started).Round(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	k := fleetClusterKind()
	objects, err := b.cluster.readKind(ctx, k, nil)
	for _, o := range objects {
		p.update(change{object: o}, "cluster "+o.GetName(), progressOf(o))
	}
	printf(b.Out, "\nready in %s\n", took)
	if err != nil || len(objects) == 0 {
		return err
	}
	for _, o := range objects {
		b.clusters = append(b.clusters, o.GetName())
		if c, ok := o.(*fleetv1.FleetCluster); ok && c.Status.Fleet != nil {
			b.masters = append(b.masters, o.GetName())
		}
	}
	printf(b.Out, "\n")
	return view{kind: k, now: time.Now}.write(newTable(b.Out), objects)
}

// causes prints every object that is not ready, with its message.
func (b *bringUp) causes(ctx context.Context, stalled bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	everywhere := *b.cluster
	everywhere.scope = ""
	ks := kinds()
	objects, err := everywhere.read(ctx, ks, nil)
	if err != nil {
		return err
	}
	for i, k := range ks {
		for _, o := range objects[i] {
			if ready := k.state(o).ready(); ready.Status != metav1.ConditionTrue {
				printf(b.Err, "%s/%s/%s: %s\n", k.name, o.GetNamespace(), o.GetName(), line(ready.Message))
			}
		}
	}
	why := fmt.Errorf("not ready after %s", b.options.timeout)
	if stalled {
		why = errors.New("it cannot become ready until the repository changes")
	}
	return &failure.Error{Op: "deliver", Object: "the fleet", Kind: failure.Timeout, Err: why,
		Remedy: "everything is left running; the messages above say what to do"}
}

func (p *progress) update(ch change, name string, s state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ch.deleted {
		delete(p.states, name)
		p.names = slices.DeleteFunc(p.names, func(n string) bool { return n == name })
	} else {
		if _, known := p.states[name]; !known {
			p.names = append(p.names, name)
		}
		p.states[name] = s
	}
	if p.live {
		p.paint()
		return
	}
	if !ch.deleted {
		p.tell(ch.object, name, s)
	}
}

// tell prints a line when there is something new to say.
func (p *progress) tell(o client.Object, name string, s state) {
	text := p.text(s)
	if s.observed < o.GetGeneration() || p.shown[name] == text {
		return
	}
	p.shown[name] = text
	printf(p.app.Out, "%-40s %s\n", name, text)
}

func (p *progress) text(s state) string {
	ready := s.ready()
	switch {
	case ready.Status != metav1.ConditionTrue:
		return line(ready.Message)
	case s.outcome != "":
		return s.outcome
	}
	return "ready at " + shortRevision(s.revision)
}

// paint draws the list over the one that was drawn before.
func (p *progress) paint() {
	width, height := 80, 24
	if f, ok := file(p.app.Out); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			width, height = w, h
		}
	}
	var out strings.Builder
	if p.painted > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", p.painted)
	}
	lines := p.lines(height - 2)
	for _, l := range lines {
		text := l.text
		if runes := []rune(text); len(runes) > width-3 {
			text = string(runes[:max(width-4, 1)]) + "…"
		}
		fmt.Fprintf(&out, "\x1b[2K%s%s\n", string(l.colour)+l.mark+reset+" ", text)
	}
	// Lines of objects that are gone.
	for range p.painted - len(lines) {
		out.WriteString("\x1b[2K\n")
	}
	p.painted = max(p.painted, len(lines))
	printf(p.app.Out, "%s", out.String())
}

// liveLine is one line of the live display.
type liveLine struct {
	mark   string
	colour colour
	text   string
}

// lines is what to show on at most most lines: everything by name, or else what
// is not ready yet, and how many more there are.
func (p *progress) lines(most int) []liveLine {
	slices.Sort(p.names)
	names, rest := p.names, 0
	if len(names) > most {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			return p.states[n].ready().Status == metav1.ConditionTrue
		})
		names = names[:min(len(names), max(most-1, 0))]
		rest = len(p.names) - len(names)
	}
	out := make([]liveLine, 0, len(names)+1)
	for _, name := range names {
		l := liveLine{"…", yellow, fmt.Sprintf("%-40s %s", name, p.text(p.states[name]))}
		switch p.states[name].ready().Status {
		case metav1.ConditionTrue:
			l.mark, l.colour = "✓", green
		case metav1.ConditionFalse:
			l.mark, l.colour = "✗", red
		case metav1.ConditionUnknown: // as it is
		}
		out = append(out, l)
	}
	if rest > 0 {
		out = append(out, liveLine{" ", grey, fmt.Sprintf("and %d more", rest)})
	}
	return out
}
