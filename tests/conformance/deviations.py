"""Where a program does otherwise than a case demands, and why: each is a strict expected failure.

By program as named on the command line, then by case: `name` with all its parameters, or `name[parameters]`, in which
`*` stands for anything. Only a cause in the library under test belongs here, or in what it is mounted in: what a test
peer does wrong gets mended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

import pytest

# The Go module and the WebSocket library that it is built on (github.com/coder/websocket).

TWO_PARTS = "EncodeEvent leaves the third part out when there is no data"
TEXT_ONLY = "Conn.emit sends every frame in a text message"
UTF8_UNCHECKED = "coder/websocket does not check that text is UTF-8"
ANY_NAME_READ = "UnmarshalEvent takes any name: empty, too long, no UTF-8"
SIGNS_AND_ZEROS_READ = "UnmarshalEvent reads the id with strconv.Atoi, which takes signs and leading zeros"
REPLIES_UNREPORTED = "whatever begins with __ack_ is a reply, and one that fits nothing is dropped without OnError"
ANY_NAME_EMITTED = "Conn.Emit takes any name"
NO_SIZE_OUT = "Conn.Emit has no limit of size"
ID_ALONE = "a reply is matched by its id alone, not by its name"
NO_MALFORMED_LIMIT = "malformed frames are only reported, however many"
ALWAYS_REPLIES = "a handler can't fail: what it returns is the reply, and OnError hears nothing of it"
NO_ORDER = "each event gets a goroutine of its own, and these start in no order"
NO_INFLIGHT_LIMIT = "there is no limit of handlers"
NO_PING_LIMIT = "pings are answered, however many"
BLOCKING_WRITES = "Conn.Emit waits for the socket: a member that does not read holds up the whole broadcast"
JOINS_AFTER_LEAVING = (
    "a handler that runs on after the disconnect can join a room, and nothing takes the connection out again"
)
NO_SUBPROTOCOL = "a server selects no subprotocol unless told to, and then echoes what it is told"
VERSION_400 = "coder/websocket answers another version with 400"
HEADER_LIMITS = "net/http allows 1 MiB of headers in any number of lines"
NO_SHUTDOWN_REASON = "Server.Shutdown closes with 1000 and no reason"
NO_DRAIN = "Server.Shutdown closes at once: handlers that run are cancelled"
UNMASKED_DROPPED = "coder/websocket drops a connection with unmasked frames without a close frame"
MASKED_TAKEN = "coder/websocket's client does not mind masked frames"
REASON_UNCHECKED = "coder/websocket does not check that a close reason is UTF-8"
LENGTH_UNCHECKED = "coder/websocket reads up to the limit, whatever length is announced"
FRAGMENTS_UNCOUNTED = "coder/websocket counts the payload only: empty fragments have no limit"
CLOSE_MISREAD = "Conn.Close takes over the reading in mid-stream, and OnDisconnect then gets an error that is no close"
NO_RECONNECT = "a client does not reconnect"
NO_STATUS = "Client.Dial does not tell the status that the server answered"
NO_OUTBOX = "Conn.Emit waits for the socket: there is nothing to fill and to refuse"
NO_ACK_LIMIT = "there is no limit of open acknowledgments"
NO_DIAL_TIMEOUT = "Client.Dial waits as long as its context allows"
NO_KEEPALIVE = "there is no keepalive"
NO_STALL_LIMIT = "a started message may take for ever"
NO_HANDSHAKE_TIMEOUT = "net/http waits for ever for a request unless told otherwise"

_GO_SERVER = {
    TWO_PARTS: [
        "an_event_without_a_payload_is_written_in_three_parts",
        "an_acknowledged_event_without_a_payload_is_written_in_three_parts",
        "a_payload_of_any_size_reaches_all[0]",
    ],
    TEXT_ONLY: [
        "a_payload_that_is_no_utf8_comes_back_in_a_binary_message",
        "a_broadcast_that_is_no_utf8_goes_out_in_a_binary_message",
        "a_question_that_is_no_utf8_goes_out_in_a_binary_message",
        "a_reply_that_is_no_utf8_is_read",
    ],
    UTF8_UNCHECKED: [
        "a_text_message_of_broken_utf8_closes_with_1007",
        "broken_utf8_in_a_fragment_closes_with_1007",
        "broken_utf8_in_a_malformed_frame_closes_with_1007",
    ],
    ANY_NAME_READ: [
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[an-empty-name]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[257-bytes-of-name]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[257-bytes,-256-characters]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[262-bytes-without-__ack_]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-bar-behind-256-bytes-that-does-not-separate]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-broken-byte-in-the-name]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-sequence-cut-off-in-the-name]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-surrogate-in-the-name]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[an-overlong-form-in-the-name]",
    ],
    REPLIES_UNREPORTED: [
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-reply-to-an-empty-name*]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[257-bytes-of-name-behind-__ack_]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-second-__ack_-counts]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-broken-byte-in-the-name-of-a-reply]",
    ],
    SIGNS_AND_ZEROS_READ: [
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-leading-plus]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-negative-id]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[minus-zero]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[leading-zeros]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[two-zeros]",
        "a_malformed_frame_is_dropped_and_reported_and_the_connection_lives[a-leading-zero-*]",
        "a_malformed_reply_is_no_reply",
    ],
    ID_ALONE: [
        "a_reply_with_a_pending_id_and_another_name_is_dropped",
        "a_wrong_reply_does_not_put_off_the_deadline",
    ],
    NO_MALFORMED_LIMIT: [
        "17_malformed_frames_in_a_row_close_the_connection",
        "17_malformed_frames_among_good_ones_close_the_connection",
    ],
    ALWAYS_REPLIES: ["a_handler_that_fails_is_reported_and_the_connection_lives"],
    NO_SIZE_OUT: ["a_reply_of_more_than_1_mib_is_not_sent_but_reported"],
    NO_ORDER: [
        "replies_of_handlers_that_do_not_wait_come_in_the_order_of_arrival",
        "an_event_sees_what_the_one_before_it_has_done",
        "10_000_broadcasts_arrive_in_order",
        "events_that_wait_for_a_handler_are_handled_in_order",
        "close_sends_what_was_emitted_before_it",
    ],
    NO_INFLIGHT_LIMIT: [
        "no_more_than_256_handlers_of_a_connection_run_at_once",
        "a_connection_that_no_handler_frees_for_30_s_is_overloaded",
    ],
    NO_PING_LIMIT: ["a_flood_of_pings_closes_with_1008"],
    BLOCKING_WRITES: [
        "a_member_that_does_not_read_is_cut_off_and_holds_up_nobody",
        "a_member_that_is_over_the_limit_for_10_s_is_cut_off",
    ],
    JOINS_AFTER_LEAVING: [
        "who_leaves_right_after_joining_stays_in_no_room",
        "who_breaks_the_protocol_right_after_joining_stays_in_no_room",
    ],
    NO_SUBPROTOCOL: [
        "etp_is_selected_and_the_token_beside_it_is_not_echoed",
        "etp_is_selected_wherever_it_stands",
    ],
    VERSION_400: ["another_version_is_refused_with_426_and_told_ours"],
    HEADER_LIMITS: [
        "101_header_lines_are_refused_with_431",
        "headers_of_more_than_16_kib_are_refused_with_431",
    ],
    NO_SHUTDOWN_REASON: ["a_server_told_to_end_says_so"],
    NO_DRAIN: ["a_server_told_to_end_lets_running_handlers_reply"],
    UNMASKED_DROPPED: ["an_unmasked_frame_closes_with_1002"],
    REASON_UNCHECKED: ["a_close_reason_of_broken_utf8_closes_with_1007"],
    LENGTH_UNCHECKED: [
        "a_frame_that_announces_too_much_closes_with_1009_at_once",
        "an_absurd_length_closes_the_connection",
    ],
    FRAGMENTS_UNCOUNTED: ["a_message_of_endless_empty_fragments_closes_with_1009"],
    NO_KEEPALIVE: [
        "a_silent_connection_is_pinged_and_lives_while_it_answers",
        "a_connection_that_answers_no_ping_is_closed",
    ],
    NO_STALL_LIMIT: [
        "a_message_that_stops_half_way_closes_with_1008",
        "a_frame_that_stops_half_way_closes_with_1008",
    ],
    NO_HANDSHAKE_TIMEOUT: [
        "a_peer_that_never_ends_its_request_is_cut",
        "a_peer_that_says_nothing_at_all_is_cut",
    ],
}

_GO_CLIENT = {
    TWO_PARTS: [
        "an_event_is_written_as_a_frame[an-empty-payload-still-makes-three-parts*]",
        "an_acknowledged_event_without_a_payload_is_written_in_three_parts",
        "a_payload_of_any_size_goes_out_and_comes_in_unchanged[0]",
    ],
    TEXT_ONLY: [
        "an_event_is_written_as_a_frame[a-payload-that-is-not-UTF-8-goes-out-in-a-binary-message]",
        "an_event_is_written_as_a_frame[*-not-UTF-8:-binary]",
        "a_question_that_is_no_utf8_is_answered_in_a_binary_message",
    ],
    UTF8_UNCHECKED: ["a_text_message_of_broken_utf8_closes_with_1007"],
    ANY_NAME_EMITTED: [
        "a_name_outside_the_grammar_is_refused_and_nothing_sent",
        "a_refused_event_takes_no_id",
    ],
    NO_SIZE_OUT: ["a_larger_message_is_refused_and_nothing_sent"],
    ANY_NAME_READ: [
        "a_malformed_frame_is_dropped_and_the_connection_lives[an-empty-name]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[257-bytes-of-name]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[257-bytes,-256-characters]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[262-bytes-without-__ack_]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-bar-behind-256-bytes-that-does-not-separate]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-broken-byte-in-the-name]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-sequence-cut-off-in-the-name]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-surrogate-in-the-name]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[an-overlong-form-in-the-name]",
    ],
    SIGNS_AND_ZEROS_READ: [
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-leading-plus]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-negative-id]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[minus-zero]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[leading-zeros]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[two-zeros]",
        "a_malformed_frame_is_dropped_and_the_connection_lives[a-leading-zero-in-two-parts]",
        "a_malformed_reply_is_no_reply",
        "a_call_takes_nothing_else_for_its_reply[a-malformed-reply-ends-nothing]",
    ],
    ID_ALONE: [
        "a_reply_with_a_pending_id_and_another_name_is_dropped",
        "a_call_gets_its_own_reply_or_none[the-extension-channel-has-id-0*]",
        "a_call_gets_its_own_reply_or_none[a-second-prefix-is-part-of-the-name*]",
        "a_call_takes_nothing_else_for_its_reply[the-extension-channel-has-id-0*]",
        "a_call_takes_nothing_else_for_its_reply[a-second-prefix-is-part-of-the-name*]",
        "a_call_takes_nothing_else_for_its_reply[a-pending-id-with-another-event's-name-ends-nothing]",
        "a_call_takes_nothing_else_for_its_reply[a-name-that-merely-begins-alike]",
        "a_call_takes_nothing_else_for_its_reply[names-of-24-bytes-that-differ-in-the-last-one]",
        "a_call_takes_nothing_else_for_its_reply[equal-to-the-eye-is-not-equal*]",
    ],
    NO_ORDER: ["20_000_events_are_handled_in_the_order_of_arrival"],
    NO_MALFORMED_LIMIT: ["17_malformed_frames_in_a_row_close_the_connection"],
    NO_PING_LIMIT: ["a_flood_of_pings_closes_with_1008"],
    MASKED_TAKEN: ["a_masked_frame_closes_with_1002", "a_masked_ping_closes_with_1002"],
    LENGTH_UNCHECKED: ["a_frame_that_announces_too_much_closes_with_1009_at_once"],
    CLOSE_MISREAD: ["what_arrives_before_the_answer_to_a_close_does_no_harm"],
    NO_STATUS: ["a_first_dial_answered_401_or_403_is_rejected"],
    NO_RECONNECT: [
        "a_disconnect_is_told_with_what_follows[the-Go-module's-restart-gives-no-reason]",
        "a_disconnect_is_told_with_what_follows[our-server's-restart]",
        "a_disconnect_is_told_with_what_follows[going-away*]",
        "a_disconnect_is_told_with_what_follows[a-protocol-error]",
        "a_disconnect_is_told_with_what_follows[a-close-frame-without-a-code]",
        "a_disconnect_is_told_with_what_follows[broken-UTF-8]",
        "a_disconnect_is_told_with_what_follows[a-message-too-large]",
        "a_disconnect_is_told_with_what_follows[a-failed-on_connect]",
        "a_disconnect_is_told_with_what_follows[a-service-restart]",
        "a_disconnect_is_told_with_what_follows[overloaded,-or-a-slow-consumer]",
        "a_disconnect_is_told_with_what_follows[an-application's-own-code]",
        "an_end_without_a_close_frame_is_told_as_1006",
        "open_acknowledgments_are_not_answered_by_the_next_connection",
        "ids_are_counted_from_1_on_each_connection",
        "a_re_dial_asks_with_another_key",
        "who_was_away_is_there_again",
        "a_re_dial_that_is_refused_is_followed_by_another_or_ends_it",
        "whatever_retry_after_says_another_dial_follows",
        "a_re_dial_broken_off_is_followed_by_another",
    ],
    NO_OUTBOX: ["past_its_outbox_an_event_is_refused_and_no_other_is_lost"],
    NO_ACK_LIMIT: ["past_its_open_acknowledgments_another_is_refused"],
    NO_DIAL_TIMEOUT: ["a_server_that_never_answers_is_no_connection"],
    NO_KEEPALIVE: ["a_silent_server_is_pinged", "a_server_that_answers_no_ping_is_left"],
}


# The Python server as an ASGI application: uvicorn speaks HTTP and WebSocket, Starlette routes. The library under test could
# do none of this otherwise, and several of the answers depend on how the bytes happen to arrive: such cases are left out.

UVICORN_HANDSHAKES = (
    "uvicorn and its WebSocket library answer requests that are no WebSocket handshake, or not one of theirs"
)
UVICORN_HEADERS = "uvicorn's HTTP parser has its own limits of headers"
STARLETTE_ROUTES = "Starlette refuses unknown paths before the application is asked, and uvicorn answers 403"
EMPTY_QUERY_LOST = "an ASGI scope does not tell an empty query from none"
EARLY_BYTES_LOST = "uvicorn may drop what comes in one packet with the request"
UVICORN_PONGS = (
    "uvicorn answers pings by itself, also between a violation and the close frame that the core has sent it"
)
UVICORN_PINGS = "uvicorn answers pings by itself, however many"
UVICORN_CLOSES = "uvicorn's WebSocket library answers broken UTF-8 and close frames, or breaks off"
UVICORN_SIZES = "uvicorn gathers a message before the application sees it"
UVICORN_ACCEPTS = "uvicorn goes on accepting while the application shuts down"

_ASGI_HOST = {
    UVICORN_HANDSHAKES: [
        "another_version_is_refused_with_426_and_told_ours",
        "a_request_without_a_version_is_refused_and_told_ours",
        "a_plain_get_is_answered_426",
        "a_request_that_does_not_ask_for_an_upgrade_is_answered_426",
        "http_1_0_is_refused",
        "requests_as_they_occur_are_accepted[a-choice]",
    ],
    UVICORN_HEADERS: [
        "101_header_lines_are_refused_with_431",
        "headers_of_15_kib_are_read",
        "headers_of_more_than_16_kib_are_refused_with_431",
    ],
    STARLETTE_ROUTES: ["another_path_is_answered_404"],
    EMPTY_QUERY_LOST: ["the_requests_path_and_query_are_told_as_sent[/ws?]"],
    EARLY_BYTES_LOST: [
        "the_first_event_finds_its_connection_counted",
        "half_a_frame_in_the_packet_of_the_request_is_kept",
        "an_event_in_the_packet_of_the_request_is_handled",
        "many_events_in_the_packet_of_the_request_are_all_handled",
    ],
    UVICORN_PONGS: [
        "17_malformed_frames_in_a_row_close_the_connection",
        "17_malformed_frames_among_good_ones_close_the_connection",
        "a_message_of_1_mib_and_1_byte_closes_with_1009",
        "fragments_of_1_mib_and_1_byte_close_with_1009",
        "a_connection_is_counted_in_and_out_once[too_large]",
    ],
    UVICORN_PINGS: ["a_flood_of_pings_closes_with_1008"],
    UVICORN_CLOSES: [
        "a_text_message_of_broken_utf8_closes_with_1007",
        "broken_utf8_in_a_fragment_closes_with_1007",
        "broken_utf8_in_a_malformed_frame_closes_with_1007",
        "a_close_frame_between_fragments_is_answered",
    ],
    UVICORN_SIZES: [
        "a_frame_that_announces_too_much_closes_with_1009_at_once",
        "a_message_of_endless_empty_fragments_closes_with_1009",
    ],
    UVICORN_ACCEPTS: ["a_server_told_to_end_accepts_nobody_any_more"],
}


# The Node server on the port of an `http.Server` or `https.Server`: that asks us only when a request wants an upgrade, and
# else the application. The test peer's answers 404.

NODE_ROUTES = "what asks for no upgrade Node's http server gives to the application's own handler"

_NODE_HOST = {
    NODE_ROUTES: [
        "a_plain_get_is_answered_426",
        "a_request_that_does_not_ask_for_an_upgrade_is_answered_426",
    ],
}


# The browser's client: what a script may do, and what its WebSocket decides. That is Chromium's in a page, that of the
# package `ws` in Node 20, and undici's in later ones.

NO_PING = "a script sees and sends no pings"
CODES = "a script may close with 1000 and 3000 to 4999: 4008 and 4009 stand for 1008 and 1009"
HIDES_STATUS = (
    "a script does not learn a refused handshake's status: `connect_failed`, and a re-dial is followed by another"
)
WEBSOCKET_OFFERS = "its WebSocket offers permessage-deflate by itself"
WEBSOCKET_TAKES = "its WebSocket asked for that extension, and takes it"
WEBSOCKET_PINGS = "its WebSocket answers pings by itself and counts none"
CLOSED_IN_THE_ANSWER = "what is closed in the packet of the handshake's answer is over before its script hears of it"
UNDICI_CONNECTION = "undici takes the answer's Connection for one word, not for a list"
UNDICI_STAYS = "undici leaves the end of the TCP connection to the server, however long that takes"
CHROMIUM_ORIGIN = "a browser tells the page's origin"
CHROMIUM_UTF8 = "Chromium closes with 1002 for broken UTF-8"
CHROMIUM_CODES = "Chromium answers a close frame with its code, whatever that is"
CHROMIUM_LENGTH = "Chromium minds no announced length: a message is too large when all of it is there"

_SCRIPT = {
    NO_PING: [
        "after_its_own_close_nothing_can_be_sent[ping]",
        "a_ping_of_the_user_ends_with_its_pong",
        "a_ping_of_the_user_ends_with_the_connection",
        "a_silent_server_is_pinged",
        "a_server_that_answers_no_ping_is_left",
    ],
    CODES: ["17_malformed_frames_in_a_row_close_the_connection", "a_larger_message_closes_with_1009"],
    HIDES_STATUS: [
        "a_first_dial_answered_401_or_403_is_rejected",
        "a_re_dial_that_is_refused_is_followed_by_another_or_ends_it[credentials-refused]",
        "a_re_dial_that_is_refused_is_followed_by_another_or_ends_it[forbidden]",
    ],
    WEBSOCKET_OFFERS: ["no_subprotocol_and_no_extension_is_asked_for"],
    WEBSOCKET_TAKES: ["an_answer_101_that_does_not_fit_is_no_connection[an-unasked-extension]"],
    WEBSOCKET_PINGS: ["a_flood_of_pings_closes_with_1008"],
}

_WS = {CLOSED_IN_THE_ANSWER: ["a_close_in_the_packet_of_the_answer_is_answered"]}

_UNDICI = {
    UNDICI_CONNECTION: ["answers_as_they_occur_are_taken[capitals]"],
    UNDICI_STAYS: [
        "a_client_closes_with_1000_and_waits_for_the_answer",
        "what_arrives_before_the_answer_to_a_close_does_no_harm",
        "after_its_own_close_nothing_can_be_sent[emit]",
        "after_its_own_close_nothing_can_be_sent[ack]",
        "a_client_at_the_end_of_its_commands_closes_and_exits",
        "a_server_that_stays_after_the_closing_handshake_is_left",
    ],
}

_CHROMIUM = {
    CHROMIUM_ORIGIN: ["the_request_has_no_origin"],
    CHROMIUM_UTF8: ["a_text_message_of_broken_utf8_closes_with_1007"],
    CHROMIUM_CODES: [
        "a_close_code_that_must_not_be_sent_closes_with_1002[0]",
        "a_close_code_that_must_not_be_sent_closes_with_1002[999]",
        "a_close_code_that_must_not_be_sent_closes_with_1002[1004]",
        "a_close_code_that_must_not_be_sent_closes_with_1002[2999]",
        "a_close_code_that_must_not_be_sent_closes_with_1002[5000]",
    ],
    CHROMIUM_LENGTH: ["a_frame_that_announces_too_much_closes_with_1009_at_once"],
}

_NODE_CLIENT = {**_SCRIPT, **(_WS if os.environ.get("ETP_NODE", "20") == "20" else _UNDICI)}
_BROWSER = {**_SCRIPT, **_CHROMIUM}


def _by_case(by_cause: dict[str, list[str]]) -> dict[str, str]:
    return {case: cause for cause, cases in by_cause.items() for case in cases}


SERVERS: dict[str, dict[str, str]] = {
    "go": _by_case(_GO_SERVER),
    "node --attach": _by_case(_NODE_HOST),
    "node --attach-tls": _by_case(_NODE_HOST),
}
CLIENTS: dict[str, dict[str, str]] = {
    "go": _by_case(_GO_CLIENT),
    "browser": _by_case(_BROWSER),
    "browser --nowasm": _by_case(_BROWSER),
    "node-client": _by_case(_NODE_CLIENT),
    "node-client --nowasm": _by_case(_NODE_CLIENT),
}
ROLES = {"server": SERVERS, "client": CLIENTS}

HOSTS: dict[str, dict[str, str]] = {"python --asgi": _by_case(_ASGI_HOST)}
"""Cases about what another program decides, in which the server under test is mounted: they are not run."""

Case = tuple[str, str]
"""A case's name and its parameters, but for the program: `("a_name_works", "256-bytes")`."""

COLLECTED = pytest.StashKey[dict[tuple[str, str], list[Case]]]()
"""The cases collected, by role and program."""


def names_case(entry: str, name: str, parameters: str) -> bool:
    """Whether a table's entry names the case `name` with these parameters."""
    case, _, pattern = entry.partition("[")
    return case == name and (not pattern or fnmatchcase(parameters, pattern.removesuffix("]")))


def cause(table: dict[str, str], name: str, parameters: str) -> str | None:
    return next((cause for entry, cause in table.items() if names_case(entry, name, parameters)), None)


def stale(table: dict[str, str], cases: Iterable[Case]) -> list[str]:
    """Entries that name none of the cases."""
    cases = list(cases)
    return [entry for entry in table if not any(names_case(entry, *case) for case in cases)]
