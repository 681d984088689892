"""The servers that brokers and pages will be tested with do what their real clients ask, once."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tools.services import Services

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own


async def test_the_service_bus_sdk_sends_receives_and_dead_letters(services: Services) -> None:
    """Queue, batch, complete, abandon, dead-letter queue, a session in order, and a topic with two subscriptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage, ServiceBusSubQueue
        from azure.servicebus.aio import ServiceBusClient

    url = services.get("servicebus").url
    async with ServiceBusClient.from_connection_string(url) as client:
        async with client.get_queue_sender("events") as sender:
            await sender.send_messages(ServiceBusMessage("first", message_id="m-1"))
            batch = await sender.create_message_batch()
            batch.add_message(ServiceBusMessage("second"))
            batch.add_message(ServiceBusMessage("third"))
            await sender.send_messages(batch)
        async with client.get_queue_receiver("events", max_wait_time=5) as receiver:
            (first,) = await receiver.receive_messages(max_message_count=1)
            assert (str(first), first.message_id) == ("first", "m-1")
            await receiver.abandon_message(first)
            seen = []
            while len(seen) < 3:
                seen += await receiver.receive_messages(max_message_count=3 - len(seen))
            assert sorted(map(str, seen)) == ["first", "second", "third"]
            for message in seen:
                if str(message) == "third":
                    await receiver.dead_letter_message(message, reason="poison")
                else:
                    await receiver.complete_message(message)
        dead = ServiceBusSubQueue.DEAD_LETTER
        async with client.get_queue_receiver("events", sub_queue=dead, max_wait_time=5) as receiver:
            (buried,) = await receiver.receive_messages(max_message_count=1)
            assert (str(buried), buried.dead_letter_reason) == ("third", "poison")
            await receiver.complete_message(buried)
        async with client.get_queue_sender("orders") as sender:
            for text in ("placed", "paid"):
                await sender.send_messages(ServiceBusMessage(text, session_id="order-1"))
        async with client.get_queue_receiver("orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
            assert receiver.session.session_id == "order-1"
            texts = []
            while len(texts) < 2:
                for message in await receiver.receive_messages(max_message_count=2):
                    texts.append(str(message))
                    await receiver.complete_message(message)
            assert texts == ["placed", "paid"]
        async with client.get_topic_sender("news") as sender:
            await sender.send_messages(ServiceBusMessage("hello"))
        for subscription in ("one", "two"):
            async with client.get_subscription_receiver("news", subscription, max_wait_time=5) as receiver:
                (message,) = await receiver.receive_messages(max_message_count=1)
                assert str(message) == "hello"
                await receiver.complete_message(message)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>events</title><button onclick=\"this.textContent='done'\">go</button>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a page on loopback."""
    server = HTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_browser_opens_a_page_and_clicks(services: Services, page: str) -> None:
    """Playwright drives Debian's Chromium through its debugging endpoint."""
    from playwright.async_api import async_playwright

    url = services.get("chromium").url
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(url)
        opened = await browser.new_page()
        await opened.goto(page)
        await opened.click("button")
        assert (await opened.title(), await opened.text_content("button")) == ("events", "done")
        picture = await opened.screenshot()
        assert picture.startswith(b"\x89PNG")
        await browser.close()
    await asyncio.sleep(0)
