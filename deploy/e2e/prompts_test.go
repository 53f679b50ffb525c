package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// run is one of a hook, as the API shows it.
type run struct {
	ID      int64    `json:"id"`
	HookID  int64    `json:"hook_id"`
	Status  string   `json:"status"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"`
	RuleIDs []string `json:"rule_ids"`
	Output  any      `json:"output"`
	Error   string   `json:"error"`
	Calls   []struct {
		Tool   string         `json:"tool"`
		Result map[string]int `json:"result"`
	} `json:"tool_calls"`
}

// standin runs the stand-in of a model and an MCP server, and gives where it is.
func standin(t *testing.T, b *bench) (address string) {
	t.Helper()
	binary := filepath.Join(b.options.Dir, "bin", "standin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./services/prompt-worker/examples/standin")
	build.Dir = b.options.Root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, binary, "127.0.0.1:0")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	said, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	found := regexp.MustCompile(`http://([0-9.:]+)/v1`).FindStringSubmatch(line)
	require.Len(t, found, 2, line)
	return found[1]
}

// examples are the shell blocks of prompt-worker's README, as they stand there.
func examples(t *testing.T, root string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "services/prompt-worker/README.md"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	require.GreaterOrEqual(t, len(blocks), 4)
	return blocks
}

// shell runs a script as a reader does, and gives what it printed.
func (b *bench) shell(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "SAMETICK_URL="+b.URL, "SAMETICK_TOKEN="+b.Token)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", script, out)
	return string(out)
}

// testPrompts runs the README's examples against the suite, and then ends prompt-worker: what its hooks' failure policies
// say is what happens.
func testPrompts(t *testing.T, b *bench) {
	blocks := examples(t, b.options.Root)
	address := standin(t, b)
	for i := range blocks {
		blocks[i] = strings.ReplaceAll(blocks[i], "127.0.0.1:9500", address)
	}
	said := b.shell(t, blocks[0]+blocks[1])
	require.Equal(t, 2, strings.Count(said, "REVIEW_REJECTED"), said)
	require.Contains(t, said, `a task needs a title`)
	require.Contains(t, said, `a raise of 200 % or more`)
	var hooks struct {
		Data []struct {
			ID   int64
			Name string
		}
	}
	b.get(t, "/api/prompts/hooks", b.Token, &hooks)
	hook := hooks.Data[0].ID
	testRefused(t, b, hook)

	said = b.shell(t, blocks[0]+blocks[2]+blocks[3])
	summary := b.ended(t, "aggregate_type=workflow")
	require.Contains(t, fmt.Sprint(summary.Output), `"Onboard^Ada"`, "in its fence: %+v\n%s", summary, said)
	counted := b.ended(t, "aggregate_type=announcement")
	require.Len(t, counted.Calls, 1, "%+v\n%s", counted, said)
	require.Equal(t, "count_words", counted.Calls[0].Tool)
	require.Positive(t, counted.Calls[0].Result["words"])
	var completed list
	await(t, "the run's event", func() bool {
		b.get(t, "/api/events?event_type=prompt_run.completed", b.Token, &completed)
		return completed.Total == 2
	})
	testWorkerDown(t, b, hook)
}

// ended waits for the end of the only run of a kind.
func (b *bench) ended(t *testing.T, query string) run {
	t.Helper()
	var page struct{ Data []run }
	await(t, "a run of "+query, func() bool {
		b.get(t, "/api/prompts/runs?"+query, b.Token, &page)
		return len(page.Data) == 1
	})
	require.Equal(t, "completed", page.Data[0].Status, "%+v", page.Data[0])
	return page.Data[0]
}

// testRefused: a refused write is in the audit log and in the runs, and nowhere else; the good ones are there, too.
func testRefused(t *testing.T, b *bench, hook int64) {
	var audit struct{ Total int }
	b.get(t, "/api/audit?outcome=rejected", b.Token, &audit)
	require.Equal(t, 2, audit.Total)
	var page struct{ Data []run }
	await(t, "four runs", func() bool { // of the four writes that the hook saw: Ada was made without one
		b.get(t, fmt.Sprintf("/api/prompts/runs?trigger=review&hook_id=%d", hook), b.Token, &page)
		return len(page.Data) == 4
	})
	var rejected []string
	for _, r := range page.Data {
		require.Equal(t, "completed", r.Status)
		rejected = append(rejected, r.RuleIDs...)
	}
	require.ElementsMatch(t, []string{"title", "raise"}, rejected)
	var blank list
	b.get(t, "/api/events?event_type=task.post_create", b.Token, &blank)
	for _, e := range blank.Data {
		require.NotEqual(t, " ", e.Payload["record_name"], "it was refused")
	}
}

// testWorkerDown kills prompt-worker: fail_closed refuses until it is back, fail_open lets pass and says so.
func testWorkerDown(t *testing.T, b *bench, hook int64) {
	write := func(name string) (int, string) {
		status, text, err := b.ask(t.Context(), http.MethodPost, "/api/records/task", b.Token, map[string]any{"name": name}, nil)
		require.NoError(t, err)
		return status, text
	}
	change := func(set map[string]any) {
		status, text, err := b.ask(t.Context(), http.MethodPatch, fmt.Sprintf("/api/prompts/hooks/%d", hook), b.Token, set, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status, text)
	}
	kill := func() { _ = b.StopService("prompt-worker", syscall.SIGKILL) } // it says how it ended
	revive := func() {
		require.NoError(t, b.StartService("prompt-worker"))
		require.NoError(t, b.AwaitReady(t.Context(), "prompt-worker"))
	}
	kill()
	status, text := write("while it is down")
	require.Equal(t, http.StatusServiceUnavailable, status, text)
	require.Contains(t, text, "REVIEW_UNAVAILABLE")
	status, _, err := b.ask(t.Context(), http.MethodGet, "/api/prompts/hooks", b.Token, nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, status)
	revive()
	await(t, "reviews to go on", func() bool { status, _ := write("when it is back"); return status == http.StatusOK })
	change(map[string]any{"failure_policy": "fail_open"})
	kill()
	status, text = write("open")
	require.Equal(t, http.StatusOK, status, text)
	revive()
	await(t, "reviews to refuse again", func() bool { status, _ := write(" "); return status == http.StatusUnprocessableEntity })
	change(map[string]any{"enabled": false})
	status, text = write(" ")
	require.Equal(t, http.StatusOK, status, "a hook that is not enabled: %s", text)
}
