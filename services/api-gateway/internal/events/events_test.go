package events

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]string{
		"2026-04-12": "2026-04-12T00:00:00Z", "2026-04-12T14:30:00Z": "2026-04-12T14:30:00Z", "2026-04-12T14:30:00.123+02:00": "2026-04-12T12:30:00.123Z",
		"2026-04-12T14:30:00 02:00": "2026-04-12T12:30:00Z", "2026-04-12T14:30Z": "2026-04-12T14:30:00Z", "2026-04-12T14:30:00+0200": "2026-04-12T12:30:00Z",
		"2024-02-29": "2024-02-29T00:00:00Z",
		"":           "", "now": "", "2026-13-01": "", "2023-02-29": "", "2026-04-12T14:30:00": "", "2026-04-12 14:30:00Z": "", "12345678": "", "2026-04-12T25:00:00Z": "",
		"2026-04-12T14:30:00Z\n": "", "2026-04-12T14:30:00.12345678901234567890Z": "",
	} {
		got, ok := ParseTime(text)
		require.Equal(t, want != "", ok, text)
		if ok {
			require.Equal(t, want, got.Format(time.RFC3339Nano), text)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2026-04-12", "2026-04-12T14:30:00 02:00", "2026-04-12T14:30Z", "9999-12-31T23:59:59-23:59"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := ParseTime(text)
		if !ok {
			return
		}
		if got.Location() != time.UTC || got.Year() < -1 || got.Year() > 10000 {
			t.Fatalf("%q gave %v", text, got)
		}
		again, ok := ParseTime(got.Format(time.RFC3339Nano))
		if got.Year() >= 0 && got.Year() <= 9999 && (!ok || !again.Equal(got)) {
			t.Fatalf("%q gave %v, which gave %v", text, got, again)
		}
	})
}
