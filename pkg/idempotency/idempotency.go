// Package idempotency does a call that carries an Idempotency-Key once, and gives those that are sent again within
// 24 hours the answer of the first. The claim of the key, what the call changes and its answer commit in one
// transaction, that of the service which owns what is changed. Unary is the interceptor, Claims the transaction for
// services that use pkg/pg; the table is pkg/outbox's.
package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/errs"
)

// Metadata of a call with a key, and of an answer that was given before.
const (
	Key      = "idempotency-key"
	Replayed = "idempotency-replayed"
)

// maxKey bounds an Idempotency-Key, in characters.
const maxKey = 255

// Claim is a call that shall be done once.
type Claim struct {
	OrgID int64
	// Caller is who calls: another one's keys are others.
	Caller               string
	KeyHash, RequestHash []byte
}

// Once does calls once.
type Once interface {
	// Once does what was claimed, in one transaction with the claim and its answer. When it was done before, it
	// gives that call's request hash and answer instead. An error of do leaves no claim.
	Once(ctx context.Context, c Claim, do func(context.Context) (answer []byte, err error)) (requestHash, kept []byte, err error)
	// Forget ends some keys that are too old to be asked for.
	Forget(ctx context.Context)
}

// Options of Unary.
type Options struct {
	Once Once
	// Caller tells who calls; an empty subject is nobody known.
	Caller func(context.Context) (orgID int64, subject string)
	// Refused are the methods that take no key, by full name, and why.
	Refused map[string]string
	// Elsewhere tells whether a method is another service's, which keeps its keys; nil for none.
	Elsewhere func(fullMethod string) bool
}

// Unary is the interceptor of calls that carry a key, after the one that knows who calls. Methods that begin with Get
// or List only read: their keys mean nothing.
func Unary(o Options) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		keys := metadata.ValueFromIncomingContext(ctx, Key)
		m, isMessage := req.(proto.Message)
		if len(keys) == 0 || keys[0] == "" || !isMessage || !mutates(info.FullMethod) || o.Elsewhere != nil && o.Elsewhere(info.FullMethod) {
			return next(ctx, req)
		}
		orgID, subject := o.Caller(ctx)
		why, refused := o.Refused[info.FullMethod]
		switch {
		case len(keys) > 1 || !isKey(keys[0]):
			return nil, invalid("INVALID_KEY", fmt.Sprintf("once, 1 to %d printable ASCII characters", maxKey))
		case subject == "":
			return nil, invalid("NOT_SUPPORTED", "no key here: who calls is not known before")
		case refused:
			return nil, invalid("NOT_SUPPORTED", "no key here: "+why)
		}
		return o.do(ctx, orgID, subject, keys[0], info.FullMethod, m, next)
	}
}

// mutates: all methods but those that read.
func mutates(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	return !strings.HasPrefix(method, "/grpc.") && !strings.HasPrefix(name, "Get") && !strings.HasPrefix(name, "List")
}

func isKey(s string) bool {
	return len(s) <= maxKey && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (o Options) do(ctx context.Context, orgID int64, caller, key, method string, req proto.Message, next grpc.UnaryHandler) (any, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	keyHash := sha256.Sum256([]byte(key))
	requestHash := sha256.Sum256(append([]byte(method+"\x00"), text...))
	seal, err := sealer(key, orgID)
	if err != nil {
		return nil, err
	}
	var answer any
	claim := Claim{OrgID: orgID, Caller: caller, KeyHash: keyHash[:], RequestHash: requestHash[:]}
	found, kept, err := o.Once.Once(ctx, claim, func(ctx context.Context) ([]byte, error) {
		var err error
		if answer, err = next(ctx, req); err != nil {
			return nil, err
		}
		return encrypt(seal, answer)
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		if rand.N(50) == 0 { // now and then
			o.Once.Forget(ctx)
		}
		return answer, nil
	case !bytes.Equal(found, requestHash[:]):
		return nil, errs.New(errs.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used for another request").
			WithField("Idempotency-Key", "IDEMPOTENCY_KEY_REUSED", "a new key for each request")
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(Replayed, "true")) // an in-process call has none
	return decrypt(seal, kept)
}

func invalid(reason, allowed string) error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField("Idempotency-Key", reason, allowed)
}
