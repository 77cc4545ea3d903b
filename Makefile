# make run     a broker with its own ZooKeeper on this machine, see README.md; RUN='--port 8124' are options of it
# make test    everything: installs what the tests need, checks types and style, runs all tests, prints the count
# make help    the other targets

PY := .venv/bin/python
SECONDS_OF_SOAK ?= 600
KILLS ?= 200
CUTS ?= 200
CLIENT_SECONDS ?= 300
FAULTS ?= 500
ZOOKEEPER_SECONDS ?= 300
FUZZ_SECONDS ?= 300
TWIN_FRAMES ?= 100000000
TURN_FRAMES ?= 5000000
ROUGH_SEEDS ?= 1000
CODEC_SECONDS ?= 3600
DISK_SECONDS ?= 3600
DAMAGE_SECONDS ?= 3600
MODEL_STEPS ?= 200000
MUTANTS ?= --count 100 store broker client zookeeper ids wire

.PHONY: help environment run test unit pythons lint documents faces settings soak fuzz fuzz-native fuzz-codec test-asan disk-faults damaged-logs mutants kills slow-kills transaction-kills power-cuts crash-matrix client-faults bench bench-clients bench-zookeeper zookeeper-differential kazoo-suite clean

help:
	@echo 'make run      start a broker (port 8123) and its ZooKeeper (port 2181), data in ./metaq-data'
	@echo 'make test     set up what the tests need, run all of them and print the count'
	@echo 'make unit     the tests that need no other software: seconds'
	@echo 'make pythons  the same tests on every other Python from 3.11 to 3.14 that is here'
	@echo 'make lint     mypy and ruff'
	@echo 'make documents  the pages and the reference as HTML, in build/documents'
	@echo 'make faces    write the asyncio face of the client again, from the Twisted one'
	@echo 'make settings write the types and the tables of the client'"'"'s settings'
	@echo 'make kills    kill -9 the broker under load, KILLS=$(KILLS) times'
	@echo 'make slow-kills  the same while the disk is slow for one topic'
	@echo 'make transaction-kills  kill -9 it while clients mix transactions and puts, KILLS=500 for the long proof'
	@echo 'make power-cuts  the same with power cuts of its disk, CUTS=$(CUTS) times; needs root and loop devices'
	@echo 'make crash-matrix  the broker dies or its disk fails at each of its calls, in each flush mode; MODEL_STEPS=$(MODEL_STEPS) random steps'
	@echo 'make replication-faults  a pair, a slave and their clients under FAULTS=$(FAULTS) faults'
	@echo 'make client-faults  the client under random faults for CLIENT_SECONDS=$(CLIENT_SECONDS); CLIENT='"'"'--help'"'"' lists its options'
	@echo 'make soak     full load for SECONDS_OF_SOAK=$(SECONDS_OF_SOAK)'
	@echo 'make fuzz     random bytes against decoder and broker for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make fuzz-native  TWIN_FRAMES=$(TWIN_FRAMES) requests through the hot path in C and the one in Python, ROUGH_SEEDS=$(ROUGH_SEEDS) rough runs'
	@echo 'make fuzz-codec   random bytes against the codec in C, under sanitizers, for CODEC_SECONDS=$(CODEC_SECONDS)'
	@echo 'make test-asan    the unit tests of the part in C, under sanitizers'
	@echo 'make disk-faults  each system call of the store fails, is short, hangs, for DISK_SECONDS=$(DISK_SECONDS)'
	@echo 'make mutants  which faults no unit test notices; MUTANTS='"'"'--count 50 store broker/topics'"'"' names where'
	@echo 'make damaged-logs  logs damaged at random, read by every kind of consumer, for DAMAGE_SECONDS=$(DAMAGE_SECONDS)'
	@echo 'make bench    our broker and the Java broker side by side; BENCH=--quick takes 4 minutes'
	@echo 'make bench-clients    the Python client beside the Java client and Kafka'"'"'s clients: 10 minutes'
	@echo 'make bench-zookeeper          the embedded ZooKeeper and Debian'"'"'s side by side; BENCH=--quick takes 2 minutes'
	@echo 'make zookeeper-differential   random requests to both for ZOOKEEPER_SECONDS=$(ZOOKEEPER_SECONDS)'
	@echo 'make kazoo-suite              kazoo'"'"'s own tests against the embedded ZooKeeper: 3 minutes'
	@echo 'make clean    remove what was built and installed here; ./metaq-data stays'

environment:
	@tools/python-environment

run: environment
	@exec .venv/bin/twistd -n --pidfile= metaq --local $(RUN)

test: environment
	@tools/system-packages
	@tools/native-module
	@tools/python-interpreters
	@$(PY) -m tests.run --all

pythons: environment
	@tools/python-interpreters
	@$(PY) -m tests.run $$(awk 'NF == 2 { print "unit-" $$1 }' .cache/pythons/list)

unit: environment
	@tools/native-module
	@$(PY) -m tests.run unit

lint: environment
	@$(PY) -m tests.run types style format

documents: environment
	@$(PY) -m tests.run documents

faces: environment
	@$(PY) tools/asyncio_faces.py

settings: environment
	@$(PY) tools/settings.py

kills: environment
	@tools/system-packages
	@KILLS=$(KILLS) $(PY) -m tests.faults.kills

slow-kills: environment
	@tools/system-packages
	@KILLS=$(KILLS) $(PY) -m tests.faults.slowdisk

transaction-kills: environment
	@tools/system-packages
	@KILLS=$(KILLS) $(PY) -m tests.faults.transactionkills

power-cuts: environment
	@tools/system-packages
	@CUTS=$(CUTS) $(PY) -m tests.faults.powercuts

crash-matrix: environment
	@CRASH_STRIDE=1 MODEL_STEPS=$(MODEL_STEPS) $(PY) -m tests.run tests.unit.transactions.test_crashes tests.unit.transactions.test_model

replication-faults: environment
	@FAULTS=$(FAULTS) $(PY) -m tests.faults.replication

client-faults: environment
	@tools/system-packages
	@CLIENT_SECONDS=$(CLIENT_SECONDS) $(PY) -m tests.faults.client_soak $(CLIENT)

soak: environment
	@tools/system-packages
	@$(PY) -m benchmarks --no-cells --soak $(SECONDS_OF_SOAK)

fuzz: environment
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(PY) -m tests.faults.fuzz

fuzz-native: environment
	@tools/native-module
	@TWIN_FRAMES=$(TWIN_FRAMES) TWIN_STREAMS=$(TWIN_FRAMES) $(PY) -m twisted.trial --temp-directory .cache/fuzz-native tests.unit.broker.test_twins tests.unit.native.test_sends
	@TURN_FRAMES=$(TURN_FRAMES) $(PY) -m twisted.trial --temp-directory .cache/fuzz-turns tests.unit.broker.test_turntwins
	@ROUGH_SEEDS=$(ROUGH_SEEDS) $(PY) -m twisted.trial --temp-directory .cache/fuzz-rough tests.unit.broker.test_rough tests.unit.replication.pairmaster.test_rough

fuzz-codec: environment
	@tools/system-packages
	@$(PY) -m tests.native.sanitized codec $(CODEC_SECONDS)

test-asan: environment
	@tools/system-packages
	@$(PY) -m tests.native.sanitized module

disk-faults: environment
	@DISK_SECONDS=$(DISK_SECONDS) $(PY) -m tests.faults.disk_calls

damaged-logs: environment
	@$(PY) -m tests.support.damagedlogs $(DAMAGE_SECONDS)

bench: environment
	@tools/system-packages
	@$(PY) -m benchmarks $(BENCH)

bench-clients: environment
	@tools/system-packages
	@$(PY) -m benchmarks.clients $(BENCH)

bench-zookeeper: environment
	@tools/system-packages
	@$(PY) -m benchmarks.zookeeper $(BENCH)

mutants: environment
	@tools/python-interpreters
	@$(PY) -m tests.mutants $(MUTANTS)

zookeeper-differential: environment
	@tools/system-packages
	@ZOOKEEPER_SECONDS=$(ZOOKEEPER_SECONDS) $(PY) -m tests.integration.differential

kazoo-suite: environment
	@$(PY) -m tests.integration.kazoosuite

clean:
	rm -rf .venv .cache build dist *.egg-info compat/java/target benchmarks/bin _trial_temp*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
