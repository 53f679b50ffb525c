package identity

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/errs"
)

// Attempt names what a try of a password is counted by: hashes of the account, of the network address it
// comes from, and of both together.
type Attempt struct{ Pair, Account, Address []byte }

// Throttle counts failed tries over all replicas. Its rules are in the database (sametick.begin_login),
// because a count must be read and raised at once.
type Throttle interface {
	// BeginLogin counts a try as failed, or gives how long to wait before the next.
	BeginLogin(ctx context.Context, a Attempt) (wait time.Duration, err error)
	// EndLogin takes the failure back.
	EndLogin(ctx context.Context, a Attempt) error
}

// attemptAt names a try. kind keeps logins apart from other uses of a password. Accounts that do not exist
// are counted like those that do.
func attemptAt(kind, account, ip string) Attempt {
	hash := func(parts ...string) []byte {
		sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
		return sum[:]
	}
	account, ip = kind+" "+strings.ToLower(account), network(ip)
	return Attempt{Pair: hash("pair", account, ip), Account: hash("account", account), Address: hash("address", ip)}
}

// network is the address itself, or of IPv6 its /64, which is what one customer has at least.
func network(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	a = a.Unmap()
	if a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}

func (s *Service) begin(ctx context.Context, a Attempt) error {
	wait, err := s.store.Throttle.BeginLogin(ctx, a)
	if err != nil || wait <= 0 {
		return err
	}
	return errs.New(errs.ResourceExhausted, "LOGIN_THROTTLED", "too many tries have failed; wait before the next").
		WithRetryAfter(max(wait, time.Second))
}
