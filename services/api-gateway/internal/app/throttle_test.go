package app

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/errs"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// from is a login from an address, as the process' REST side would pass it on.
func (s *suite) from(ip, email, password string) error {
	ctx := metadata.AppendToOutgoingContext(s.t.Context(), grpcapi.GatewayKey, s.g.secret, grpcapi.ClientIPKey, ip)
	_, err := identityv1.NewIdentityServiceClient(s.conn).Login(ctx, &identityv1.LoginRequest{Email: email, Password: password})
	return err
}

// later lets time pass for everything that was counted.
func (s *suite) later(d time.Duration) {
	_, err := s.admin.Exec(s.t.Context(), `UPDATE sametick.login_attempts SET blocked_until = blocked_until - make_interval(secs => $1),
		seen_at = seen_at - make_interval(secs => $1), trusted_until = trusted_until - make_interval(secs => $1), expires_at = expires_at - make_interval(secs => $1)
		WHERE key IS NOT NULL`, d.Seconds())
	require.NoError(s.t, err)
}

// suppose sets the count that is highest: a hash costs too much to make hundreds.
func (s *suite) suppose(failures int) {
	_, err := s.admin.Exec(s.t.Context(), "UPDATE sametick.login_attempts SET failures = $1 WHERE key = (SELECT key FROM sametick.login_attempts ORDER BY failures DESC LIMIT 1)", failures)
	require.NoError(s.t, err)
}

func throttled(t *testing.T, err error) time.Duration {
	t.Helper()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	e := errs.From(err)
	require.Equal(t, "LOGIN_THROTTLED", e.Reason)
	return e.RetryAfter
}

// TestGuesserWaits: five failures are free, then each costs twice as long; the right password does not help
// who has to wait, an unknown account is treated alike, and it is over when the time has passed.
func TestGuesserWaits(t *testing.T) {
	s := start(t, nil)
	for _, email := range []string{"ann@acme.example", "nobody@acme.example"} {
		for i := range 5 {
			require.Equal(t, codes.Unauthenticated, status.Code(s.from("192.0.2.1", email, "wrong")), i)
		}
		wait := throttled(t, s.from("192.0.2.1", email, password))
		require.LessOrEqual(t, wait, time.Second)
		for _, seconds := range []int{2, 4, 8} {
			s.later(time.Duration(seconds) * time.Second / 2)
			require.Equal(t, codes.Unauthenticated, status.Code(s.from("192.0.2.1", email, "wrong")))
			wait = throttled(t, s.from("192.0.2.1", email, "wrong"))
			require.InDelta(t, seconds, wait.Seconds(), 1)
		}
	}
	require.NoError(t, s.from("192.0.2.7", "ann@acme.example", password), "the owner, from elsewhere")
	for range 12 {
		s.later(15 * time.Minute)
		require.Equal(t, codes.Unauthenticated, status.Code(s.from("192.0.2.1", "ann@acme.example", "wrong")))
	}
	require.InDelta(t, 900, throttled(t, s.from("192.0.2.1", "ann@acme.example", password)).Seconds(), 1, "the longest")
	s.later(15 * time.Minute)
	require.NoError(t, s.from("192.0.2.1", "ann@acme.example", password))
	require.Equal(t, codes.Unauthenticated, status.Code(s.from("192.0.2.1", "ann@acme.example", "wrong")), "a success begins anew")
	require.NoError(t, s.from("192.0.2.1", "ann@acme.example", password))
}

// TestVictimIsNotLockedOut by an attacker with as many addresses as they like.
func TestVictimIsNotLockedOut(t *testing.T) {
	s := start(t, nil)
	require.NoError(t, s.from("198.51.100.1", "ann@acme.example", password), "from home, once")
	refused := 0
	for i := range 20 {
		if i == 3 {
			s.suppose(42) // of the account
		}
		if status.Code(s.from(fmt.Sprintf("203.0.113.%d", i), "ann@acme.example", "wrong")) == codes.ResourceExhausted {
			refused++
		}
	}
	require.Positive(t, refused, "a botnet is slowed down, too")
	require.LessOrEqual(t, throttled(t, s.from("198.51.100.2", "ann@acme.example", password)), 30*time.Second, "a new place waits, and not for long")
	require.NoError(t, s.from("198.51.100.1", "ann@acme.example", password), "home goes on")
	require.NoError(t, s.from("203.0.113.5", "bob@bolt.example", password), "others do not notice")
	s.later(30 * time.Second)
	require.NoError(t, s.from("198.51.100.2", "ann@acme.example", password))
}

// TestAddressWaits: one address that tries many accounts.
func TestAddressWaits(t *testing.T) {
	s := start(t, nil)
	tried := 0
	for i := range 20 {
		if i == 3 {
			s.suppose(90) // of the address
		}
		if status.Code(s.from("192.0.2.9", fmt.Sprintf("user%d@acme.example", i), "wrong")) == codes.Unauthenticated {
			tried++
		}
	}
	require.GreaterOrEqual(t, tried, 3+10)
	require.Less(t, tried, 3+10+4, "and what a second or two let pass")
	throttled(t, s.from("192.0.2.9", "ann@acme.example", password))
	require.NoError(t, s.from("192.0.2.8", "ann@acme.example", password))
}

// TestGuessesAllAtOnce do not slip past the count.
func TestGuessesAllAtOnce(t *testing.T) {
	s := start(t, nil)
	var wg sync.WaitGroup
	outcomes := make([]codes.Code, 40)
	for i := range outcomes {
		wg.Go(func() { outcomes[i] = status.Code(s.from("192.0.2.1", "ann@acme.example", "wrong")) })
	}
	wg.Wait()
	tried := 0
	for _, c := range outcomes {
		if c == codes.Unauthenticated {
			tried++
		}
	}
	require.GreaterOrEqual(t, tried, 5)
	require.LessOrEqual(t, tried, 8, "5 free, and what a second or two let pass")
}

// TestOwnLoginsForgiveNothing: an attacker with an account of their own cannot wash off guesses at others'.
func TestOwnLoginsForgiveNothing(t *testing.T) {
	s := start(t, nil)
	guesses := 0
	for i := range 25 {
		if i == 3 {
			s.suppose(90) // of the address
		}
		if status.Code(s.from("192.0.2.3", fmt.Sprintf("user%d@acme.example", i), "wrong")) == codes.Unauthenticated {
			guesses++
		}
		_ = s.from("192.0.2.3", "bob@bolt.example", password)
	}
	require.GreaterOrEqual(t, guesses, 3+10)
	require.Less(t, guesses, 3+10+4)
}

func TestThrottleOverREST(t *testing.T) {
	s := start(t, nil)
	for range 5 {
		s.login("ann@acme.example", "wrong")
	}
	a := s.login("ann@acme.example", password)
	require.Equal(t, http.StatusTooManyRequests, a.status)
	require.Equal(t, "LOGIN_THROTTLED", a.problem(t).Reason)
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(t, err)
	require.Equal(t, 1, wait)
}

// TestSessionThiefCannotGuess: changing a password asks for the old one, and not as often as one likes.
func TestSessionThiefCannotGuess(t *testing.T) {
	s := start(t, nil)
	session := s.session()
	for range 5 {
		require.Equal(t, "PASSWORD_WRONG", s.changePassword(session.AccessToken, "wrong", otherPassword).problem(t).Reason)
	}
	require.Equal(t, "LOGIN_THROTTLED", s.changePassword(session.AccessToken, password, otherPassword).problem(t).Reason)
	require.Equal(t, http.StatusOK, s.login("ann@acme.example", password).status, "a login is counted apart")
}

// TestThrottleForgets: the table does not grow for ever.
func TestThrottleForgets(t *testing.T) {
	s := start(t, nil)
	for i := range 10 {
		_ = s.from(fmt.Sprintf("203.0.113.%d", i), fmt.Sprintf("user%d@acme.example", i), "wrong")
	}
	rows := func() (n int) {
		require.NoError(t, s.admin.QueryRow(context.WithoutCancel(t.Context()), "SELECT count(*) FROM sametick.login_attempts").Scan(&n))
		return n
	}
	require.Equal(t, 30, rows())
	s.later(25 * time.Hour)
	for range 4 {
		require.NoError(t, s.from("192.0.2.1", "ann@acme.example", password))
	}
	require.Equal(t, 3, rows(), "each login removes some")
}
