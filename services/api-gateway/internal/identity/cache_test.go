package identity

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

type findFunc func() (APIKey, error)

func (f findFunc) FindKey(context.Context, []byte) (APIKey, error) { return f() }

// A look-up that read the key before it was archived must not put it back after forget: else a key that
// ArchiveKey has ended "at once here" lives on for KeyCacheTTL.
func TestForgottenKeyStaysForgotten(t *testing.T) {
	archived := false
	var c *KeyCache
	c = NewKeyCache(findFunc(func() (APIKey, error) {
		if archived {
			return APIKey{}, errs.New(errs.NotFound, "NOT_FOUND", "not found")
		}
		k := APIKey{OrgID: 1, ID: 7, Scopes: auth.ScopesOf(auth.EventsRead)}
		archived = true // committed while the answer is on its way
		c.Clear()
		return k, nil
	}), time.Now)
	secret, _ := NewKeySecret()
	_, err := c.Find(t.Context(), secret) // may pass: it began before
	require.NoError(t, err)
	_, err = c.Find(t.Context(), secret)
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
}
