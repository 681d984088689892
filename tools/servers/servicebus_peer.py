"""A peer that speaks to the azure-servicebus SDK in AMQP 1.0: for tests, on loopback, everything in memory.

python servicebus_peer.py PORT queue:NAME sessions:NAME topic:NAME:SUBSCRIPTION,…

It has queues (with and without sessions), topics with subscriptions, peek-lock with complete, abandon, dead-letter and
renewal, delivery counts and dead-letter queues. It is not Azure: no TLS, no check of keys, no rules, no scheduling, no storage.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from proton import Condition, Delivery, Link, Message, symbol, timestamp
from proton.handlers import MessagingHandler
from proton.reactor import Container

LOCK_SECONDS = 30.0
MAX_DELIVERIES = 10
DEAD = "/$DeadLetterQueue"
SESSION_FILTER = "com.microsoft:session-filter"
TICKS_1970 = 621_355_968_000_000_000


@dataclass
class Stored:
    """One message in a queue."""

    message: Message
    number: int
    deliveries: int = 0
    arrived: float = field(default_factory=time.time)


@dataclass
class Lock:
    """A message that a receiver has and has not settled."""

    stored: Stored
    until: float
    link: Any


class Queue:
    """A queue, a subscription, or the dead-letter queue of one."""

    def __init__(self, name: str, with_sessions: bool = False) -> None:
        self.name, self.with_sessions = name, with_sessions
        self.waiting: deque[Stored] = deque()
        self.locks: dict[UUID, Lock] = {}
        self.receivers: list[Any] = []
        self.asking: list[tuple[Any, str | None]] = []
        self.sessions: dict[str, Any] = {}
        self.count = 0

    def put(self, message: Message) -> None:
        """Add a message at the end."""
        self.count += 1
        self.waiting.append(Stored(message, self.count))

    def put_back(self, stored: Stored) -> None:
        """Give a message its old place again."""
        self.waiting.append(stored)
        self.waiting = deque(sorted(self.waiting, key=lambda each: each.number))


class Peer(MessagingHandler):
    """Accepts connections on one port."""

    def __init__(self, port: int, queues: list[Queue], topics: dict[str, list[str]]) -> None:
        super().__init__(prefetch=0, auto_accept=False, auto_settle=False)
        self.port, self.topics = port, topics
        self.queues = {queue.name: queue for queue in queues}
        self.queues.update({queue.name + DEAD: Queue(queue.name + DEAD) for queue in queues})
        self.replies: dict[tuple[Any, str], Any] = {}

    def on_start(self, event: Any) -> None:
        self.container = event.container
        event.container.listen(f"amqp://127.0.0.1:{self.port}")
        event.container.schedule(0.1, self)

    def on_timer_task(self, event: Any) -> None:
        """Return what was locked for too long."""
        for queue in self.queues.values():
            for token, lock in list(queue.locks.items()):
                if lock.until < time.time():
                    del queue.locks[token]
                    self.failed(queue, lock.stored)
            self.deliver(queue)
        self.container.schedule(0.1, self)

    # Links

    def on_link_opening(self, event: Any) -> None:
        link = event.link
        address = (link.remote_target if link.is_receiver else link.remote_source).address or ""
        link.entity = address.split("://", 1)[-1].split("/", 1)[-1] if "://" in address else address
        link.source.address, link.target.address = link.remote_source.address, link.remote_target.address
        link.snd_settle_mode, link.rcv_settle_mode = link.remote_snd_settle_mode, link.remote_rcv_settle_mode
        of_peer = link.entity == "$cbs" or link.entity.endswith("/$management")
        if link.is_receiver and (of_peer or link.entity in self.queues or link.entity in self.topics):
            link.open()
            link.flow(500)
        elif of_peer:
            link.open()
            self.replies[event.connection, link.entity] = link
        elif link.is_sender and link.entity in self.queues:
            self.open_receiver(self.queues[link.entity], link)
        else:
            self.refuse(link, "amqp:not-found", f"There is no entity {link.entity!r}.")

    def open_receiver(self, queue: Queue, link: Any) -> None:
        wanted = link.remote_source.filter
        wanted.rewind()
        filters = {str(key): value for key, value in (wanted.get_object() or {}).items()} if wanted.next() else {}
        link.owned_session = None
        if SESSION_FILTER in filters:
            queue.asking.append((link, filters[SESSION_FILTER]))
        elif queue.with_sessions:
            self.refuse(link, "amqp:not-allowed", "This entity needs a session receiver.")
        else:
            link.open()
            queue.receivers.append(link)
        self.deliver(queue)

    @staticmethod
    def refuse(link: Any, condition: str, text: str) -> None:
        link.source.address = link.target.address = None
        link.open()
        link.condition = Condition(condition, text)
        link.close()

    def on_link_closing(self, event: Any) -> None:
        self.forget(event.link)
        event.link.close()

    def on_connection_closing(self, event: Any) -> None:
        event.connection.close()

    def on_disconnected(self, event: Any) -> None:
        for queue in self.queues.values():
            for link in [*queue.receivers, *(link for link, _ in queue.asking)]:
                if link.connection == event.connection:
                    self.forget(link)

    def forget(self, link: Any) -> None:
        """A receiver is gone: its messages are free again."""
        queue = self.queues.get(getattr(link, "entity", ""))
        if queue is None:
            return
        queue.asking = [(other, wanted) for other, wanted in queue.asking if other != link]
        if link in queue.receivers:
            queue.receivers.remove(link)
            queue.sessions = {session: owner for session, owner in queue.sessions.items() if owner != link}
            for token in [token for token, lock in queue.locks.items() if lock.link == link]:
                queue.put_back(queue.locks.pop(token).stored)
            self.deliver(queue)

    # Messages out

    def deliver(self, queue: Queue) -> None:
        """Hand out sessions, then messages, as far as there is credit."""
        for link, wanted in list(queue.asking):
            waiting = (stored.message.group_id for stored in queue.waiting)
            session = wanted or next((each for each in waiting if each and each not in queue.sessions), None)
            if session is None:
                continue
            queue.asking.remove((link, wanted))
            if session in queue.sessions:
                self.refuse(link, "com.microsoft:session-cannot-be-locked", f"Session {session!r} has an owner.")
                continue
            queue.sessions[session], link.owned_session = link, session
            queue.receivers.append(link)
            link.source.filter.put_dict({symbol(SESSION_FILTER): session})
            locked_until = int((time.time() + LOCK_SECONDS) * 10_000_000) + TICKS_1970
            link.properties = {symbol("com.microsoft:locked-until-utc"): locked_until}
            link.open()
        for link in queue.receivers:
            while link.credit > 0:
                mine = (
                    s for s in queue.waiting if link.owned_session is None or s.message.group_id == link.owned_session
                )
                stored = next(mine, None)
                if stored is None:
                    break
                queue.waiting.remove(stored)
                self.send(queue, link, stored)
            if link.credit > 0 and link.drain_mode:
                link.drained()

    def send(self, queue: Queue, link: Any, stored: Stored) -> None:
        token, until, message = uuid4(), time.time() + LOCK_SECONDS, stored.message
        message.delivery_count = stored.deliveries
        message.annotations = {
            **(message.annotations or {}),
            symbol("x-opt-sequence-number"): stored.number,
            symbol("x-opt-enqueued-time"): timestamp(int(stored.arrived * 1000)),
            symbol("x-opt-locked-until"): timestamp(int(until * 1000)),
        }
        delivery = link.delivery(token.bytes_le)
        link.stream(message.encode())
        link.advance()
        if link.snd_settle_mode == Link.SND_SETTLED:
            delivery.settle()
        else:
            delivery.token = token
            queue.locks[token] = Lock(stored, until, link)

    def on_link_flow(self, event: Any) -> None:
        queue = self.queues.get(getattr(event.link, "entity", ""))
        if event.link.is_sender and queue is not None:
            self.deliver(queue)

    on_sendable = on_link_flow

    # Messages in, and what became of those that went out

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if link.is_receiver:
            if delivery.readable and not delivery.partial:
                self.receive(delivery, link, event.connection)
        elif delivery.updated and delivery.remote_state:
            self.conclude(delivery, self.queues.get(link.entity))

    def receive(self, delivery: Any, link: Any, connection: Any) -> None:
        raw = link.recv(delivery.pending)
        link.advance()
        delivery.update(Delivery.ACCEPTED)
        delivery.settle()
        link.flow(1)
        message = decoded(raw)
        if link.entity not in self.queues and link.entity not in self.topics:
            self.answer(link.entity, message, connection)
            return
        for name in self.topics.get(link.entity, [link.entity]):
            for one in unbatched(raw):
                self.queues[name].put(one)
            self.deliver(self.queues[name])

    def conclude(self, delivery: Any, queue: Queue | None) -> None:
        lock = None if queue is None else queue.locks.pop(getattr(delivery, "token", None), None)  # type: ignore[arg-type]
        if queue is None or lock is None:
            delivery.local.condition = Condition("com.microsoft:message-lock-lost", "The lock has run out.")
            delivery.update(Delivery.REJECTED)
            delivery.settle()
            return
        state = delivery.remote_state
        if state == Delivery.REJECTED:
            condition = delivery.remote.condition
            info = {str(key): value for key, value in ((condition.info if condition else None) or {}).items()}
            self.bury(queue, lock.stored, info)
        elif state in (Delivery.MODIFIED, Delivery.RELEASED):
            self.failed(queue, lock.stored)
        delivery.update(state)
        delivery.settle()
        self.deliver(queue)

    def failed(self, queue: Queue, stored: Stored) -> None:
        """Count a delivery that did not succeed; too many of them bury the message."""
        stored.deliveries += 1
        if stored.deliveries >= MAX_DELIVERIES:
            self.bury(queue, stored, {"DeadLetterReason": "MaxDeliveryCountExceeded"})
        else:
            queue.put_back(stored)

    def bury(self, queue: Queue, stored: Stored, info: dict[str, Any]) -> None:
        kept: Any = stored.message.properties or {}
        stored.message.properties = {**kept, **info}  # type: ignore[assignment]
        dead = self.queues.get(queue.name + DEAD, queue)
        dead.put(stored.message)
        self.deliver(dead)

    def answer(self, entity: str, request: Message, connection: Any) -> None:
        """Answer a request to $cbs (any token is good) or to a queue's $management."""
        code, error = 202 if entity == "$cbs" else 501, ""
        body: dict[str, Any] = {}
        given: Any = request.body
        queue = self.queues.get(entity.removesuffix("/$management"))
        properties: Any = request.properties or {}
        operation = properties.get("operation")
        if queue is not None and operation == "com.microsoft:renew-lock":
            code, until = 200, time.time() + LOCK_SECONDS
            for token in given["lock-tokens"]:
                if token in queue.locks:
                    queue.locks[token].until = until
                else:
                    code, error = 410, "com.microsoft:message-lock-lost"
            body = {"expirations": [timestamp(int(until * 1000)) for _ in given["lock-tokens"]]}
        elif queue is not None and operation == "com.microsoft:renew-session-lock":
            code, body = 200, {"expiration": timestamp(int((time.time() + LOCK_SECONDS) * 1000))}
        text = error or ("OK" if code < 400 else "this peer does not know the operation")
        status = {"status-code": code, "statusCode": code, "status-description": text, "statusDescription": text}
        link = self.replies[connection, entity]
        reply = Message(body=body, correlation_id=request.id, properties=status)
        delivery = link.delivery(uuid4().bytes)
        link.stream(reply.encode())
        link.advance()
        delivery.settle()


def decoded(raw: bytes) -> Message:
    """Return the message that the bytes are."""
    message = Message()
    message.decode(raw)
    return message


def data_sections(raw: bytes) -> list[bytes]:
    """Return the contents of the data sections (code 0x75) of an encoded message."""
    found, at = [], 0
    while at < len(raw):
        small = raw[at + 1] == 0x53
        code, at = (raw[at + 2], at + 3) if small else (raw[at + 9], at + 10)
        form = raw[at]
        if form == 0x45:
            size, at = 0, at + 1
        elif form in (0xA0, 0xC0, 0xC1):
            size, at = raw[at + 1], at + 2
        elif form in (0xB0, 0xD0, 0xD1):
            size, at = int.from_bytes(raw[at + 1 : at + 5], "big"), at + 5
        else:
            break
        if code == 0x75:
            found.append(raw[at : at + size])
        at += size
    return found


def unbatched(raw: bytes) -> list[Message]:
    """Return the messages of a batch: one whose data sections are encoded messages themselves; else the message."""
    parts = data_sections(raw)
    if parts and all(part[:2] in (b"\x00\x53", b"\x00\x80") for part in parts):
        return [decoded(part) for part in parts]
    return [decoded(raw)]


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    queues: list[Queue] = []
    topics: dict[str, list[str]] = {}
    for entity in arguments[1:]:
        kind, name, *more = entity.split(":")
        if kind == "topic":
            topics[name] = [f"{name}/Subscriptions/{subscription}" for subscription in more[0].split(",")]
            queues += [Queue(subscription) for subscription in topics[name]]
        else:
            queues.append(Queue(name, with_sessions=kind == "sessions"))
    Container(Peer(int(arguments[0]), queues, topics)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
