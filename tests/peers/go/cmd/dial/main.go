// Command dial is the client of the Go test peers: commands in, what happens out, a JSON object a line.
//
// Acks and pings run concurrently; everything else is done before the next command is read.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/txix-open/etp/v4"
	"github.com/txix-open/etp/v4/msg"
)

const defaultTimeout = 10 * time.Second

type command struct {
	Do        string `json:"do"`
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	NameHex   string `json:"name_hex"` // instead of name, where that is no Unicode
	DataHex   string `json:"data_hex"`
	TimeoutMS int64  `json:"timeout_ms"`
}

type done struct {
	ID      int64   `json:"done"`
	DataHex *string `json:"data_hex,omitempty"`
	Error   string  `json:"error,omitempty"`
}

type received struct {
	Event   string `json:"event"`
	NameHex string `json:"name_hex,omitempty"` // beside event, where the name is no Unicode
	DataHex string `json:"data_hex"`
}

type state struct {
	State string `json:"state"`
}

type disconnected struct {
	Disconnect disconnect `json:"disconnected"`
}

type disconnect struct {
	Code          int    `json:"code"`
	Reason        string `json:"reason"`
	Clean         bool   `json:"clean"`
	Normal        bool   `json:"normal"`
	WillReconnect bool   `json:"will_reconnect"` // the reference never does
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: dial URL")
	}
	// Waiting for an ack ends with the context alone, so there is one that ends with the connection.
	alive, end := context.WithCancel(context.Background())
	client := etp.NewClient().
		OnConnect(func(*etp.Conn) { write(state{"connected"}) }).
		OnDisconnect(func(_ *etp.Conn, err error) {
			write(disconnected{describe(err)})
			end()
		}).
		OnError(func(_ *etp.Conn, err error) { log.Print(err) }).
		OnUnknownEvent(etp.HandlerFunc(report)).
		On("question", etp.HandlerFunc(func(_ context.Context, _ *etp.Conn, event msg.Event) []byte {
			return event.Data
		}))
	if err := client.Dial(context.Background(), os.Args[1]); err != nil {
		log.Print(err)
		write(map[string]string{"error": "connect_failed"})
		os.Exit(1)
	}

	var running sync.WaitGroup
	commands := json.NewDecoder(os.Stdin)
	for {
		var c command
		err := commands.Decode(&c)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatalf("not a command: %v", err)
		}
		if c.Do == "ack" || c.Do == "ping" {
			running.Add(1)
			go func() {
				defer running.Done()
				write(run(alive, client, c))
			}()
		} else {
			write(run(alive, client, c))
		}
	}

	_ = client.Close()
	<-alive.Done()
	running.Wait()
}

func run(alive context.Context, client *etp.Client, c command) done {
	timeout := defaultTimeout
	if c.TimeoutMS > 0 {
		timeout = time.Duration(c.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(alive, timeout)
	defer cancel()

	name, data, err := c.event()
	if err != nil {
		log.Fatal(err)
	}
	switch c.Do {
	case "emit":
		// Not ctx: one that ends during a write closes the connection.
		return outcome(c.ID, client.Emit(context.Background(), name, data))
	case "ack":
		reply, err := client.EmitWithAck(ctx, name, data)
		result := outcome(c.ID, err)
		if err == nil {
			text := hex.EncodeToString(reply)
			result.DataHex = &text
		}
		return result
	case "ping":
		return outcome(c.ID, client.Ping(ctx))
	case "drain":
		return done{ID: c.ID} // an emit of the reference ends when its bytes are written
	case "close":
		_ = client.Close() // whatever it says, it is closed now
		return done{ID: c.ID}
	default:
		log.Fatalf("unknown command %q", c.Do)
		panic("unreachable")
	}
}

func (c command) event() (name string, data []byte, err error) {
	name = c.Name
	if c.NameHex != "" {
		raw, err := hex.DecodeString(c.NameHex)
		if err != nil {
			return "", nil, fmt.Errorf("name_hex of command %d: %w", c.ID, err)
		}
		name = string(raw)
	}
	data, err = hex.DecodeString(c.DataHex)
	if err != nil {
		return "", nil, fmt.Errorf("data_hex of command %d: %w", c.ID, err)
	}
	return name, data, nil
}

func outcome(id int64, err error) done {
	switch {
	case err == nil:
		return done{ID: id}
	case errors.Is(err, context.DeadlineExceeded):
		return done{ID: id, Error: "ack_timeout"}
	default:
		return done{ID: id, Error: "connection_closed"}
	}
}

func report(_ context.Context, _ *etp.Conn, event msg.Event) []byte {
	line := received{Event: event.Name, DataHex: hex.EncodeToString(event.Data)}
	if !utf8.ValidString(event.Name) {
		line.NameHex = hex.EncodeToString([]byte(event.Name))
	}
	write(line)
	return nil
}

func describe(err error) disconnect {
	var frame websocket.CloseError
	if !errors.As(err, &frame) {
		return disconnect{Code: int(websocket.StatusAbnormalClosure)}
	}
	return disconnect{Code: int(frame.Code), Reason: frame.Reason, Clean: true, Normal: etp.IsNormalClose(err)}
}

var (
	output  = json.NewEncoder(os.Stdout)
	writing sync.Mutex
)

func write(line any) {
	writing.Lock()
	defer writing.Unlock()
	if err := output.Encode(line); err != nil {
		log.Fatal(err)
	}
}
