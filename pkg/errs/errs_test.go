package errs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/errs"
)

// overWire sends err as gRPC would: as marshalled status.
func overWire(t require.TestingT, err error) error {
	raw, merr := proto.Marshal(status.Convert(err).Proto())
	require.NoError(t, merr)
	p := status.New(codes.OK, "").Proto()
	require.NoError(t, proto.Unmarshal(raw, p))
	return status.FromProto(p).Err()
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 20, 100)
		e := errs.New(errs.Kind(rapid.IntRange(int(errs.Invalid), int(errs.Internal)).Draw(t, "kind")),
			text.Draw(t, "reason"), text.Draw(t, "message"))
		for range rapid.IntRange(0, 3).Draw(t, "fields") {
			e = e.WithField(text.Draw(t, "f"), text.Draw(t, "r"), text.Draw(t, "d"))
		}
		for k, v := range rapid.MapOfN(text, text, 0, 3).Draw(t, "meta") {
			e = e.WithMeta(k, v)
		}
		e = e.WithRetryAfter(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "retry")))

		got := errs.From(fmt.Errorf("call: %w", overWire(t, e.WithCause(errors.New("secret")))))

		require.Equal(t, e.Kind, got.Kind)
		require.Equal(t, e.Reason, got.Reason)
		require.Equal(t, e.Message, got.Message)
		require.Equal(t, e.Fields, got.Fields)
		require.Equal(t, e.Meta, got.Meta)
		require.Equal(t, e.RetryAfter, got.RetryAfter)
	})
}

func TestCauseStaysHere(t *testing.T) {
	e := errs.Wrap(errors.New("pq: password=hunter2"), errs.Internal, "INTERNAL", "internal error")
	require.Contains(t, e.Error(), "hunter2", "the log sees it")
	raw, err := proto.Marshal(status.Convert(e).Proto())
	require.NoError(t, err)
	require.NotContains(t, string(raw), "hunter2", "the wire does not")
	require.NoError(t, errs.Wrap(nil, errs.Internal, "X", "x"))
}

// Bytes from a stranger that protobuf refuses, or too many of them, must not lose the answer.
func TestHostileText(t *testing.T) {
	e := errs.New(errs.Invalid, "BAD\xff", "name \xed\xa0\x80 "+strings.Repeat("é", 1<<20)).WithMeta("\xfe", "\x00")
	for range 1000 {
		e = e.WithField("\xc0", "R", strings.Repeat("x", 5000))
	}
	got := errs.From(overWire(t, e))
	require.Equal(t, errs.Invalid, got.Kind)
	require.Equal(t, "BAD\uFFFD", got.Reason)
	require.LessOrEqual(t, len(got.Message), 1024)
	require.Len(t, got.Fields, 32)
}

func TestFrom(t *testing.T) {
	own := errs.New(errs.NotFound, "RECORD_NOT_FOUND", "no such record")
	for name, c := range map[string]struct {
		err     error
		kind    errs.Kind
		message string
	}{
		"own":               {own, errs.NotFound, "no such record"},
		"wrapped":           {fmt.Errorf("get: %w", own), errs.NotFound, "no such record"},
		"joined":            {errors.Join(errors.New("x"), own), errs.NotFound, "no such record"},
		"plain":             {errors.New("dial 10.0.0.1"), errs.Internal, "internal error"},
		"canceled":          {fmt.Errorf("q: %w", context.Canceled), errs.Canceled, "canceled"},
		"deadline":          {context.DeadlineExceeded, errs.DeadlineExceeded, "deadline exceeded"},
		"foreign ours":      {status.Error(codes.Unavailable, "dial 10.0.0.1"), errs.Unavailable, "temporarily unavailable"},
		"foreign callers":   {status.Error(codes.InvalidArgument, "limit: not a number"), errs.Invalid, "limit: not a number"},
		"foreign unknown":   {status.Error(codes.Unknown, "boom"), errs.Internal, "internal error"},
		"foreign exhausted": {status.Error(codes.ResourceExhausted, "x"), errs.ResourceExhausted, "too many requests"},
	} {
		t.Run(name, func(t *testing.T) {
			e := errs.From(c.err)
			require.Equal(t, c.kind, e.Kind)
			require.Equal(t, c.message, e.Message)
			require.Equal(t, c.kind, errs.KindOf(c.err))
		})
	}
	require.Nil(t, errs.From(nil))
	require.Equal(t, errs.OK, errs.KindOf(nil))
}

// A package variable is shared by all callers: adding to it must not change it, nor its siblings.
func TestBuildersCopy(t *testing.T) {
	base := errs.New(errs.Invalid, "BAD", "bad").WithField("a", "A", "a").WithMeta("k", "v")
	x, y := base.WithField("x", "X", "x").WithMeta("k", "x"), base.WithField("y", "Y", "y")
	require.Len(t, base.Fields, 1)
	require.Equal(t, "x", x.Fields[1].Field)
	require.Equal(t, "y", y.Fields[1].Field)
	require.True(t, maps.Equal(base.Meta, map[string]string{"k": "v"}))
	require.ErrorIs(t, x, base)
	require.NotErrorIs(t, x, errs.New(errs.Invalid, "OTHER", "bad"))
}

func TestHasReason(t *testing.T) {
	inner := errs.New(errs.Aborted, "INNER", "")
	err := fmt.Errorf("x: %w", errs.New(errs.Internal, "OUTER", "").WithCause(fmt.Errorf("y: %w", inner)))
	require.True(t, errs.HasReason(err, "OUTER"))
	require.True(t, errs.HasReason(err, "INNER"))
	require.False(t, errs.HasReason(err, "OTHER"))
	require.False(t, errs.HasReason(nil, "OTHER"))
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for k := errs.OK; k <= errs.Internal; k++ {
		require.NotEmpty(t, k.String())
		require.False(t, seen[k.String()], "%s twice", k)
		seen[k.String()] = true
		require.GreaterOrEqual(t, errs.HTTPStatus(k), 200)
	}
	require.Equal(t, http.StatusRequestEntityTooLarge, errs.HTTPStatus(errs.TooLarge))
	require.Equal(t, codes.Internal, errs.Kind(200).Code(), "a bad cast is our fault, not a panic")
	require.True(t, errs.Invalid.ClientFault())
	require.False(t, errs.Internal.ClientFault())
}
