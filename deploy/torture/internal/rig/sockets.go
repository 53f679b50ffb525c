package rig

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// socketStates are the kernel's (include/net/tcp_states.h).
var socketStates = map[string]string{
	"01": "ESTABLISHED", "02": "SYN_SENT", "03": "SYN_RECV", "04": "FIN_WAIT1", "05": "FIN_WAIT2", "06": "TIME_WAIT",
	"07": "CLOSE", "08": "CLOSE_WAIT", "09": "LAST_ACK", "0B": "CLOSING", "0C": "NEW_SYN_RECV",
}

const timeWait = "06"

// Ends tells how the kernel sees both ends of an IPv4 connection, given the address of one, whose port no
// other connection has: the state, and the bytes that wait to be acknowledged and to be read. It reads the table of
// proc_net_tcp (Linux' Documentation/networking/proc_net_tcp.rst).
func Ends(address string) string {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err.Error()
	}
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "unknown here: " + err.Error()
	}
	defer func() { _ = table.Close() }() // read only
	own, peer := "gone", "gone"
	var ends [2]string // of the connection, as the table writes addresses
	port := fmt.Sprintf(":%04X", a.Port())
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) >= 5 && f[3] != timeWait && strings.HasSuffix(f[1], port) { // else of an earlier connection from the port
			own, ends = end(f), [2]string{f[1], f[2]}
		}
	}
	if _, err := table.Seek(0, io.SeekStart); err != nil {
		return err.Error()
	}
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) >= 5 && (f[2] == ends[0] && f[1] == ends[1] || ends[0] == "" && f[3] != timeWait && strings.HasSuffix(f[2], port)) {
			peer = end(f)
		}
	}
	return "its own end: " + own + "; the gateway's: " + peer
}

// end describes a line: its fields are number, local address, remote address, state, and two queues in hex.
func end(f []string) string {
	send, read, _ := strings.Cut(f[4], ":")
	return fmt.Sprintf("%s, %s bytes to be acknowledged, %s to be read", socketStates[f[3]], decimal(send), decimal(read))
}

func decimal(hex string) string {
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return "?"
	}
	return strconv.FormatUint(n, 10)
}
