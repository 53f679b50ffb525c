package double

import "sync"

// gate is where a double can be held. The zero value is open.
type gate struct {
	mu   sync.Mutex
	hold chan struct{}
}

// shut holds whoever comes to pass.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold == nil {
		g.hold = make(chan struct{})
	}
}

// open lets all go on.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold != nil {
		close(g.hold)
		g.hold = nil
	}
}

// pass returns once the gate is open.
func (g *gate) pass() {
	g.mu.Lock()
	hold := g.hold
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
}
