package grpcapi

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sametick/sametick/pkg/errs"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

// Metadata of an idempotent call and of an answer that was given before.
const (
	IdempotencyKey = "idempotency-key"
	ReplayedKey    = "idempotency-replayed"
)

// maxKey bounds an Idempotency-Key, in characters.
const maxKey = 255

// Once does a call in one transaction with its claim, see store.Once.
type Once interface {
	Once(ctx context.Context, orgID int64, caller string, keyHash, requestHash []byte, do func(context.Context) ([]byte, error)) (foundHash, answer []byte, err error)
	Forget(ctx context.Context)
}

// Idempotency is the interceptor, after Access.Unary, of calls that carry a key: the first one does its work and
// keeps its answer in the same transaction, the others get that.
func Idempotency(once Once) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		key := first(md, IdempotencyKey)
		if key == "" || isProbe(info.FullMethod) || !mutates(info.FullMethod) {
			return next(ctx, req)
		}
		if len(md.Get(IdempotencyKey)) > 1 || len(key) > maxKey || Printable(key) != key {
			return nil, invalid("Idempotency-Key", "INVALID_KEY", fmt.Sprintf("once, 1 to %d printable ASCII characters", maxKey))
		}
		c := callerOf(ctx)
		if c.principal.Subject == "" {
			return nil, invalid("Idempotency-Key", "NOT_SUPPORTED", "no key here: who calls is not known before")
		}
		if info.FullMethod == identityv1.IdentityService_ChangePassword_FullMethodName {
			return nil, invalid("Idempotency-Key", "NOT_SUPPORTED", "no key here: each try of a password counts")
		}
		m, ok := req.(proto.Message)
		if !ok {
			return next(ctx, req)
		}
		return idempotent(ctx, once, c, key, info.FullMethod, m, next)
	}
}

// mutates: all methods but those that read.
func mutates(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	return !strings.HasPrefix(name, "Get") && !strings.HasPrefix(name, "List")
}

func idempotent(ctx context.Context, once Once, c caller, key, method string, req proto.Message, next grpc.UnaryHandler) (any, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	keyHash := sha256.Sum256([]byte(key))
	requestHash := sha256.Sum256(append([]byte(method+"\x00"), text...))
	seal, err := sealer(key, c.call.OrgID)
	if err != nil {
		return nil, err
	}
	var answer any
	found, kept, err := once.Once(ctx, c.call.OrgID, c.principal.Subject, keyHash[:], requestHash[:], func(ctx context.Context) ([]byte, error) {
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
			once.Forget(ctx)
		}
		return answer, nil
	case !bytes.Equal(found, requestHash[:]):
		return nil, errs.New(errs.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used for another request").
			WithField("Idempotency-Key", "IDEMPOTENCY_KEY_REUSED", "a new key for each request")
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(ReplayedKey, "true")) // an in-process call has none
	return decrypt(seal, kept)
}

// sealer makes the cipher of an answer: its key is the caller's, which is not stored.
func sealer(key string, orgID int64) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, []byte(key), nil, "sametick idempotency "+strconv.FormatInt(orgID, 10), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func encrypt(seal cipher.AEAD, answer any) ([]byte, error) {
	m, ok := answer.(proto.Message)
	if !ok {
		return nil, errors.New("an answer that is no message")
	}
	any, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	text, err := proto.Marshal(any)
	if err != nil {
		return nil, err
	}
	return seal.Seal(nil, nil, text, nil), nil
}

func decrypt(seal cipher.AEAD, kept []byte) (any, error) {
	text, err := seal.Open(nil, nil, kept, nil)
	if err != nil {
		return nil, fmt.Errorf("a kept answer cannot be read: %w", err)
	}
	var m anypb.Any
	if err := proto.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	return m.UnmarshalNew()
}
