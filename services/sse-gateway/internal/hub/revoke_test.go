package hub

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Of two roles that lose the same scope the later one may be told first; what it ended stays so.
func TestRevocationOutOfOrder(t *testing.T) {
	at := time.Now()
	l := revocations{known: map[revocationMark]revoked{}}
	mark := revocationMark{org: 1}
	l.add(revocation{mark: mark, through: at.Add(2 * time.Second)}, at)
	l.add(revocation{mark: mark, through: at}, at)
	who := Identity{Subject: "user:7", UserID: 7, IssuedAt: at.Add(time.Second)}
	require.True(t, l.has(1, who))
	who.IssuedAt = at.Add(3 * time.Second)
	require.False(t, l.has(1, who))
}
