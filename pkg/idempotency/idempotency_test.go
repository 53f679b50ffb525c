package idempotency_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/pgtest"
)

type whoKey struct{}

type who struct {
	org     int64
	subject string
}

// service counts up a table, in the call's transaction or, wrongly, beside it.
type service struct {
	t      *testing.T
	db     *pgxpool.Pool
	admin  *pgxpool.Pool
	unary  grpc.UnaryServerInterceptor
	beside bool
	fail   error
}

func start(t *testing.T) *service {
	t.Parallel()
	text, err := fs.ReadFile(outbox.Migrations(), "00005_idempotency.sql")
	require.NoError(t, err)
	db := pgtest.Migrated(t, "idempotency "+pgtest.Fingerprint(text), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	s := &service{t: t, db: pgtest.Pool(t, db.URLAs(t, "sametick_webhook")), admin: db.Pool(t)}
	_, err = s.admin.Exec(t.Context(), `CREATE TABLE public.done (said text); GRANT SELECT, INSERT ON public.done TO sametick_webhook`)
	require.NoError(t, err)
	s.unary = idempotency.Unary(idempotency.Options{Once: idempotency.NewClaims(s.db, nil),
		Caller: func(ctx context.Context) (int64, string) {
			w, _ := ctx.Value(whoKey{}).(who)
			return w.org, w.subject
		},
		Refused:   map[string]string{"/test.S/Try": "each try counts"},
		Elsewhere: func(method string) bool { return strings.HasPrefix(method, "/test.Other/") },
	})
	return s
}

func (s *service) call(method, key, say string) (string, error) {
	return s.callAs(who{1, "user:1"}, method, key, say)
}

func (s *service) callAs(w who, method, key, say string) (string, error) {
	ctx := context.WithValue(s.t.Context(), whoKey{}, w)
	if key != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(idempotency.Key, key))
	}
	out, err := s.unary(ctx, wrapperspb.String(say), &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, req any) (any, error) {
		if s.beside {
			ctx = context.WithoutCancel(s.t.Context())
		}
		err := idempotency.InTx(ctx, s.db, pg.TxOptions{Org: w.org}, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.done VALUES ($1)`, req.(*wrapperspb.StringValue).GetValue())
			return err
		})
		return wrapperspb.String("did " + req.(*wrapperspb.StringValue).GetValue()), errors.Join(err, s.fail)
	})
	if err != nil {
		return "", err
	}
	return out.(*wrapperspb.StringValue).GetValue(), nil
}

func (s *service) count(table string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

const create = "/test.S/Create"

func TestOnce(t *testing.T) {
	s := start(t)
	for range 2 {
		out, err := s.call(create, "k", "x")
		require.NoError(t, err)
		require.Equal(t, "did x", out)
	}
	require.Equal(t, 1, s.count("public.done"))
	for _, c := range []struct{ method, say string }{{create, "y"}, {"/test.S/Update", "x"}} {
		_, err := s.call(c.method, "k", c.say)
		require.True(t, errs.HasReason(err, "IDEMPOTENCY_KEY_REUSED"), err)
	}
	for _, w := range []who{{1, "user:2"}, {2, "user:1"}} {
		_, err := s.callAs(w, create, "k", "y")
		require.NoError(t, err, "another one's key is another")
	}
	require.Equal(t, 3, s.count("public.done"))
	var seen int
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.idempotency_keys WHERE position('did'::bytea IN answer) > 0`).Scan(&seen))
	require.Zero(t, seen, "an answer may have a secret")

	_, err := s.admin.Exec(t.Context(), `UPDATE sametick.idempotency_keys SET created_at = now() - interval '26 hours'`)
	require.NoError(t, err)
	out, err := s.call(create, "k", "z")
	require.NoError(t, err)
	require.Equal(t, "did z", out, "yesterday's key is free")
	idempotency.NewClaims(s.db, nil).Forget(t.Context())
	require.Equal(t, 1, s.count("sametick.idempotency_keys"))
}

// What fails leaves neither a claim nor a change; the control does its work beside the claim's transaction.
func TestAFailedCallLeavesNothing(t *testing.T) {
	s := start(t)
	for left, beside := range []bool{false, true} { // the control last: what it leaves stays
		s.beside, s.fail = beside, errs.New(errs.Invalid, "NO", "no")
		_, err := s.call(create, "k", "x")
		require.True(t, errs.HasReason(err, "NO"), err)
		require.Equal(t, left, s.count("public.done"))
		require.Zero(t, s.count("sametick.idempotency_keys"))
	}
	s.beside, s.fail = false, nil
	_, err := s.call(create, "k", "x")
	require.NoError(t, err)
}

func TestManyAtOnce(t *testing.T) {
	s := start(t)
	var wg sync.WaitGroup
	for range 20 { // more than there are connections
		wg.Go(func() {
			out, err := s.call(create, "k", "x")
			if err != nil || out != "did x" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, s.count("public.done"))
}

func TestWhatTakesNoKey(t *testing.T) {
	s := start(t)
	for range 2 {
		for _, c := range []struct{ method, key string }{{create, ""}, {"/test.S/GetIt", "k"}, {"/test.S/ListIt", "k"}, {"/test.Other/Create", "k"}} {
			_, err := s.call(c.method, c.key, "x")
			require.NoError(t, err)
		}
	}
	require.Equal(t, 8, s.count("public.done"))
	require.Zero(t, s.count("sametick.idempotency_keys"))
	for _, c := range []struct {
		w           who
		method, key string
		want        string
	}{
		{who{}, create, "k", "NOT_SUPPORTED"}, {who{1, "user:1"}, "/test.S/Try", "k", "NOT_SUPPORTED"},
		{who{1, "user:1"}, create, strings.Repeat("k", 256), "INVALID_KEY"}, {who{1, "user:1"}, create, "ключ", "INVALID_KEY"},
	} {
		_, err := s.callAs(c.w, c.method, c.key, "x")
		require.Equal(t, errs.Invalid, errs.KindOf(err))
		require.Equal(t, c.want, errs.From(err).Fields[0].Reason)
	}
	require.Equal(t, 8, s.count("public.done"))
}
