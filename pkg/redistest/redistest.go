// Package redistest gives a test a Redis of its own: a fresh server process on loopback, which the
// test may empty, stop and kill.
package redistest

import (
	"testing"

	"github.com/sametick/sametick/pkg/devstack"
)

// New starts a server that ends with the test. Further arguments go to redis-server.
func New(t testing.TB, args ...string) *devstack.Redis {
	t.Helper()
	r, err := devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: t.TempDir(), Args: args})
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Errorf("redistest: %v", err)
		}
	})
	return r
}
