package e2e_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// browser is a headless Chromium with one page, spoken to by the DevTools protocol over pipes: no port, no library.
type browser struct {
	t    *testing.T
	in   *os.File
	page string // the session of the page

	mu       sync.Mutex
	next     int
	answers  map[int]chan reply
	problems []string
	ended    chan struct{}
}

type reply struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// chromium is the browser of the machine; empty when it has none.
func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// browse starts the browser, until the test ends.
func browse(t *testing.T) *browser {
	t.Helper()
	path := chromium()
	if path == "" {
		t.Skip("no Chromium on this machine: install chromium to have the page tried in a browser")
	}
	args := []string{"--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--lang=en-GB", "--user-data-dir=" + t.TempDir()}
	if os.Geteuid() == 0 { // Chromium refuses its sandbox to root
		args = append(args, "--no-sandbox")
	}
	theirIn, ourOut, err := os.Pipe()
	require.NoError(t, err)
	ourIn, theirOut, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, append(args, "about:blank")...)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}        // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its own children go with it
	require.NoError(t, cmd.Start())
	require.NoError(t, theirIn.Close())
	require.NoError(t, theirOut.Close())
	b := &browser{t: t, in: ourOut, answers: map[int]chan reply{}, ended: make(chan struct{})}
	go b.read(ourIn)
	t.Cleanup(func() {
		_ = ourOut.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = ourIn.Close()
		<-b.ended
	})
	var target struct{ TargetID string }
	b.do("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.do("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.page = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.do(b.page, domain+".enable", nil, nil)
	}
	b.size(1100, 900)
	return b
}

// read takes messages, each of which ends with a zero byte, until the browser ends.
func (b *browser) read(from *os.File) {
	defer close(b.ended)
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for _, c := range b.answers {
				close(c)
			}
			b.answers = map[int]chan reply{}
			b.mu.Unlock()
			return
		}
		var m struct {
			ID     int
			Method string
			Params json.RawMessage
			reply
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if c, ok := b.answers[m.ID]; ok && m.ID > 0 {
			delete(b.answers, m.ID)
			c <- m.reply
		}
		if problem := complaint(m.Method, m.Params); problem != "" {
			b.problems = append(b.problems, problem)
		}
		b.mu.Unlock()
	}
}

// complaint is what a page should not make the browser say: exceptions, errors, and what its policy has refused.
func complaint(method string, params json.RawMessage) string {
	var p struct {
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Type string
		Args []struct{ Value any }
	}
	_ = json.Unmarshal(params, &p)
	switch {
	case method == "Log.entryAdded" && p.Entry.Level == "error":
		return p.Entry.Text + " " + p.Entry.URL
	case method == "Runtime.exceptionThrown":
		return p.ExceptionDetails.Text + " " + p.ExceptionDetails.Exception.Description
	case method == "Runtime.consoleAPICalled" && p.Type == "error":
		return fmt.Sprint(p.Args)
	}
	return ""
}

// complaints gives what has been complained of since it was asked last.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.problems
	b.problems = nil
	return list
}

func (b *browser) send(session, method string, params any) (reply, error) {
	c := make(chan reply, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	b.answers[id] = c
	b.mu.Unlock()
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if session != "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params, "sessionId": session})
	}
	if err != nil {
		return reply{}, err
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		return reply{}, err
	}
	select {
	case r, ok := <-c:
		if !ok {
			return r, errors.New("the browser has ended")
		}
		if r.Error != nil {
			return r, errors.New(method + ": " + r.Error.Message)
		}
		return r, nil
	case <-time.After(time.Minute):
		return reply{}, errors.New(method + ": no answer in a minute")
	}
}

func (b *browser) do(session, method string, params, into any) {
	b.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	r, err := b.send(session, method, params)
	require.NoError(b.t, err)
	if into != nil {
		require.NoError(b.t, json.Unmarshal(r.Result, into))
	}
}

// eval gives what an expression of JavaScript is, awaited, as JSON has it.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	v, err := b.try(expression)
	require.NoError(b.t, err, expression)
	return v
}

func (b *browser) try(expression string) (any, error) {
	r, err := b.send(b.page, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true})
	if err != nil {
		return nil, err
	}
	var v struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := json.Unmarshal(r.Result, &v); err != nil {
		return nil, err
	}
	if v.ExceptionDetails != nil {
		return nil, errors.New(v.ExceptionDetails.Text + " " + v.ExceptionDetails.Exception.Description)
	}
	return v.Result.Value, nil
}

// open goes to an address, in full also when only what is behind the # is another.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do(b.page, "Page.navigate", map[string]any{"url": "about:blank"}, nil)
	b.do(b.page, "Page.navigate", map[string]any{"url": url}, nil)
}

// reload loads the page anew, and waits until the old one is gone.
func (b *browser) reload() {
	b.t.Helper()
	b.eval(`window.old = true`)
	b.do(b.page, "Page.reload", nil, nil)
	b.until("another document", `window.old === undefined`)
}

// until waits for an expression to be true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		if v, err := b.try(expression); err == nil && v == true {
			return
		}
		select {
		case <-ctx.Done():
			b.shot("failed")
			text, _ := b.try(`document.body.innerText`)
			require.FailNow(b.t, "waited 30 s for "+what, "the page says:\n%v\nand complains of %v", text, b.complaints())
		case <-tick.C:
		}
	}
}

// text waits until the page shows a text.
func (b *browser) text(s string) {
	b.t.Helper()
	b.until("the text "+s, fmt.Sprintf(`document.body.innerText.includes(%q)`, s))
}

// press clicks the first visible button, link or summary with a text, waiting for it.
func (b *browser) press(label string) {
	b.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll("dialog[open] button, button, a, summary")].find(e => e.innerText.trim() === %q && !e.disabled && e.checkVisibility())`, label)
	b.until("the button "+label, find+` !== undefined`)
	b.eval(find + `.click()`)
}

// fill writes into a field of a form, as one who types it.
func (b *browser) fill(name, value string) {
	b.t.Helper()
	field := fmt.Sprintf(`document.querySelector('[name=%q]')`, name)
	b.until("the field "+name, field+` !== null`)
	b.eval(fmt.Sprintf(`(e => { e.focus(); e.value = %q; e.dispatchEvent(new Event("input", {bubbles: true})); e.dispatchEvent(new Event("change", {bubbles: true})); })(%s)`, value, field))
}

// key presses a key where the focus is.
func (b *browser) key(key, code string, number int) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		params := map[string]any{"type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number}
		if key == "Enter" && kind == "keyDown" {
			params["text"] = "\r"
		}
		b.do(b.page, "Input.dispatchKeyEvent", params, nil)
	}
}

func (b *browser) size(width, height int) {
	b.t.Helper()
	b.do(b.page, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
}

func (b *browser) scheme(scheme string) {
	b.t.Helper()
	b.do(b.page, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// shot keeps a picture of the page in SAMETICK_SCREENSHOTS, if that is set, for who wants to look.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("SAMETICK_SCREENSHOTS")
	if dir == "" {
		return
	}
	var picture struct{ Data string }
	b.do(b.page, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &picture)
	raw, err := base64.StdEncoding.DecodeString(picture.Data)
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o600))
}
