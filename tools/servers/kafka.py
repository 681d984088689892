"""Apache Kafka (KRaft, one node) from Maven Central's jars."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from tools.servers.base import CACHE, Server, ServiceError, free_port

VERSION = "4.1.0"
JARS = CACHE / f"kafka-{VERSION}"
POM = Path(__file__).with_name("kafka-pom.xml")
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={home}/data
num.partitions=3
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=4194304
"""
LOGGING = """
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


class Kafka(Server):
    """Kafka; `url` is host:port of the one broker."""

    name = "kafka"
    packages = ("default-jre-headless", "maven")
    programs = ("java",)

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and (JARS / "complete").exists()

    @classmethod
    def install(cls) -> None:
        if shutil.which("mvn") is None or shutil.which("java") is None:
            super().install()
        if cls.installed():
            return
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        JARS.mkdir(parents=True, exist_ok=True)
        env = {**os.environ}
        done = subprocess.run(
            [*command, f"-DoutputDirectory={JARS}", f"-Dkafka.version={VERSION}"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError(f"maven could not fetch Kafka {VERSION}\n{done.stdout[-2000:]}")
        (JARS / "complete").touch()

    def start(self) -> None:
        self.port, controller = free_port(), free_port()
        self.url = f"127.0.0.1:{self.port}"
        self.home.mkdir(parents=True)
        properties = self.home / "server.properties"
        properties.write_text(
            PROPERTIES.format(port=self.port, controller=controller, home=self.home), encoding="utf-8"
        )
        logging = self.home / "log4j2.properties"
        logging.write_text(LOGGING, encoding="utf-8")
        java = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        java += [f"-Dlog4j2.configurationFile={logging}", "-cp", f"{JARS}/*"]
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        tool = [*java, "-Xmx128m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"kafka could not format its storage\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        self._command = [*java, "-Xms256m", "-Xmx384m", "kafka.Kafka", str(properties)]
        self.restart()

    def restart(self) -> None:
        """Start the server on its existing data, after `stop` or `kill`."""
        seen = self.last_lines(10_000).count("Kafka Server started")
        self.spawn(self._command)
        self.wait_until(lambda: self.last_lines(10_000).count("Kafka Server started") > seen, 90)
