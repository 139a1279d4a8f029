# usr-policy: build, install, check. `make try` shows it at work, `make check` runs every test.

PREFIX ?= /usr
DESTDIR ?=
CARGO ?= cargo
INSTALL ?= install

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Where `build` leaves the programs: root, who installs them, may have no Rust.
BUILT := $(TARGET_DIR)/built
# Where it leaves the manual page and the completions that are made from the definition of the command line.
PAGES := $(TARGET_DIR)/pages
# The tree that the tests boot, and the only thing of ours that they boot.
STAGE := $(TARGET_DIR)/stage

# RUSTFLAGS in the environment replaces what .cargo/config.toml says, and the boot program would be dynamic.
ifdef RUSTFLAGS
export RUSTFLAGS += -C target-feature=+crt-static -C relocation-model=static
endif

libexecdir = $(DESTDIR)$(PREFIX)/lib/usr-policy
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system
generatordir = $(DESTDIR)$(PREFIX)/lib/systemd/system-generators
dracutdir = $(DESTDIR)$(PREFIX)/lib/dracut/modules.d
initcpiodir = $(DESTDIR)$(PREFIX)/lib/initcpio
sharedir = $(DESTDIR)$(PREFIX)/share/usr-policy
hookdir = $(DESTDIR)$(PREFIX)/share/libalpm/hooks
mandir = $(DESTDIR)$(PREFIX)/share/man
bashdir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.PHONY: all build static install install-init install-openrc uninstall stage check check-quick check-pacman check-matrix soak bench boot boots try fmt requirements requirements-boot clean try-announcement

all: build

build:
	$(CARGO) build --release --locked
	$(CARGO) run --quiet --release --locked --package usr-policy --example pages -- $(PAGES)
	ln -sfn "$$(rustc --print host-tuple)/release" $(BUILT)

# Refuses a boot program that needs a loader: an initramfs may hold none, and a root without its /usr has none.
static:
	@test -x $(BUILT)/usr-policy-generator || { echo "$(BUILT)/usr-policy-generator: not built yet; run make" >&2; exit 1; }
	@if readelf -lW $(BUILT)/usr-policy-generator | grep -q INTERP; then \
		echo "$(BUILT)/usr-policy-generator: not a static program; build with RUSTFLAGS unset, or with -C target-feature=+crt-static in it" >&2; exit 1; fi

install: static
	$(INSTALL) -Dm755 $(BUILT)/usr-policy-generator $(libexecdir)/usr-policy-generator
	$(INSTALL) -Dm755 $(BUILT)/usr-policy $(DESTDIR)$(PREFIX)/bin/usr-policy
	$(INSTALL) -Dm644 -t $(mandir)/man5 man/usr-policy.conf.5
	$(INSTALL) -Dm644 -t $(mandir)/man7 man/usr-policy.7
	$(INSTALL) -Dm644 -t $(mandir)/man8 man/usr-policy-generator.8 $(PAGES)/usr-policy.8
	$(INSTALL) -Dm644 $(PAGES)/usr-policy.bash $(bashdir)/usr-policy
	$(INSTALL) -Dm644 -t $(zshdir) $(PAGES)/_usr-policy
	$(INSTALL) -Dm644 -t $(fishdir) $(PAGES)/usr-policy.fish
	$(INSTALL) -Dm644 -t $(sharedir) share/verify.schema.json
	$(INSTALL) -Dm644 -t $(hookdir) pacman/00-usr-policy-guard.hook
	$(INSTALL) -d $(generatordir)
	ln -sfn ../../usr-policy/usr-policy-generator $(generatordir)/usr-policy-generator
	$(INSTALL) -Dm644 -t $(unitdir) units/*.service
	$(INSTALL) -Dm755 -t $(dracutdir)/90usr-policy dracut/90usr-policy/*.sh
	$(INSTALL) -Dm644 mkinitcpio/install/usr-policy $(initcpiodir)/install/usr-policy
	$(INSTALL) -Dm644 mkinitcpio/hooks/usr-policy $(initcpiodir)/hooks/usr-policy

# For a machine without an initramfs whose /usr is a partition of its own: init=/usr-policy-init on the kernel command line.
# On the root file system whatever PREFIX is, and again after each upgrade.
install-init: static
	$(INSTALL) -Dm755 $(BUILT)/usr-policy-generator $(DESTDIR)/usr-policy-init

# For a machine that OpenRC starts: its scripts are in /etc/init.d, whatever PREFIX is. A person adds it to the boot runlevel.
install-openrc:
	$(INSTALL) -Dm755 openrc/usr-policy $(DESTDIR)/etc/init.d/usr-policy

# What `install` has copied, and no directory that others use. First the hook: without its program it would stop each
# transaction of pacman, and where /usr is closed nothing else is removed either.
uninstall:
	rm -f $(hookdir)/00-usr-policy-guard.hook
	rm -f $(generatordir)/usr-policy-generator
	rm -f $(patsubst units/%,$(unitdir)/%,$(wildcard units/*.service))
	rm -rf $(dracutdir)/90usr-policy
	rm -f $(initcpiodir)/install/usr-policy $(initcpiodir)/hooks/usr-policy
	rm -rf $(sharedir)
	rm -f $(mandir)/man5/usr-policy.conf.5 $(mandir)/man7/usr-policy.7
	rm -f $(mandir)/man8/usr-policy-generator.8 $(mandir)/man8/usr-policy.8
	rm -f $(bashdir)/usr-policy $(zshdir)/_usr-policy $(fishdir)/usr-policy.fish
	rm -f $(DESTDIR)$(PREFIX)/bin/usr-policy
	rm -rf $(libexecdir)

# A fresh tree each time: nothing of an older build may stay in what the tests boot.
stage: build
	rm -rf $(STAGE)
	$(MAKE) --no-print-directory install install-init DESTDIR=$(STAGE) PREFIX=/usr

# What the tests need and a new machine may lack, by package name; nothing that is already there is fetched.
requirements:
	tests/requirements quick

requirements-boot:
	tests/requirements boot

fmt:
	$(CARGO) fmt --all

# Everything that needs no boot.
check-quick: requirements stage
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --workspace --locked --exclude usr-policy-tests
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --lib --bin try
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --test parsers --test messages --test initramfs --test golden --test systemd --test namespace --test states --test preinit --test program --test cli --test manual
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --test pacman -- --exact 'the page about pacman says what tests/pacman.tsv does'

# The real pacmans in every state of the lock, in the systems that the boots are made of; about half a minute once they are there.
check-pacman: requirements-boot stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --test pacman

# Every boot, one after the other.
boots: requirements-boot stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --test boot

# One boot: make boot CASE=name
boot: requirements-boot stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) test --package usr-policy-tests --locked --test boot -- --include-ignored --exact '$(CASE)'

# The policy at work in a virtual machine, for a person to watch.
try: try-announcement requirements-boot stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) run --package usr-policy-tests --locked --bin try

try-announcement:
	@echo 'usr-policy in a virtual machine. What is missing is installed with apt, the program is built, then a Debian'
	@echo 'system is made and booted twice: some minutes the first time, about two after that. Ctrl-C stops it cleanly.'

check: check-quick check-pacman boots

# Every cell of the boot matrix, about two hours. What an earlier run has seen of the very same machine is judged again and
# not booted again, so one that was interrupted goes on. With MKINITCPIO_SRC=DIR the cells of mkinitcpio itself as well.
check-matrix: requirements-boot stage
	@result=0; \
	USR_POLICY_STAGE=$(abspath $(STAGE)) USR_POLICY_MATRIX=$(abspath $(TARGET_DIR))/matrix.tsv \
	USR_POLICY_MATRIX_HEAD="$$(git log -1 --format='revision %h'; date -u '+date %F')" \
		$(CARGO) test --package usr-policy-tests --locked --test boot || result=$$?; \
	cp $(TARGET_DIR)/matrix.tsv tests/matrix.tsv && mkdir -p docs && tests/matrix-table tests/matrix.tsv >docs/boot-matrix.md && exit $$result

# A thousand kills at random moments, a minute in which the follower must sleep, and one cell twenty times over.
soak: requirements requirements-boot stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) USR_POLICY_KILLS=1000 USR_POLICY_IDLE=60 $(CARGO) test --package usr-policy-tests --locked --test namespace
	USR_POLICY_STAGE=$(abspath $(STAGE)) USR_POLICY_SOAK=20 $(CARGO) test --package usr-policy-tests --locked --test boot

# What the policy costs, in time, memory and size. It asserts nothing.
bench: requirements stage
	USR_POLICY_STAGE=$(abspath $(STAGE)) $(CARGO) run --release --package usr-policy-tests --locked --bin bench

clean:
	$(CARGO) clean
