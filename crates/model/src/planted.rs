//! Faults that are planted on purpose, each where an invariant is kept, to prove that the simulator's checkers
//! notice when it is not.
//!
//! Without the feature `planted`, which only the simulator turns on, [`is`] is `false` at compile time. With it
//! nothing changes either until one fault is chosen.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident $name:literal $found:expr,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $doc])* $fault,)*
        }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$fault,)*];

            /// Its name on the command line of the simulator.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }

            /// Returns the invariants of which the checkers must find one broken.
            pub const fn breaks(self) -> &'static [&'static str] {
                match self {
                    $(Self::$fault => &$found,)*
                }
            }
        }
    };
}

faults! {
    /// I-1: an append of several events leaves a hole.
    Hole "i-1-hole" ["I-1"],
    /// I-2: an append that is tried again is written again.
    Twice "i-2-twice" ["I-2"],
    /// I-3: a token passes an event that was not applied.
    Skip "i-3-skip" ["I-3"],
    /// I-3: code continues past events that it does not read and a newer code of its version does.
    Unread "i-3-unread" ["I-3"],
    /// I-3: the rows of a commit stay although its tokens were refused.
    RowsAlone "i-3-rows-alone" ["I-3"],
    /// I-3: a reset that fails leaves what it has taken away already.
    HalfReset "i-3-half-reset" ["I-3"],
    /// I-3: an event is applied although one before it in its stream is set aside.
    NotBlocked "i-3-not-blocked" ["I-3"],
    /// I-3: what is done to a view as a whole is done by one that has only some of its segments.
    NotWhole "i-3-not-whole" ["I-3", "replay"],
    /// I-4: a claim does not raise the epoch.
    SameEpoch "i-4-same-epoch" ["I-4"],
    /// I-4: a claim does not demand the epoch that was seen.
    NoCompare "i-4-no-compare" ["I-4"],
    /// I-4: a commit demands neither epoch nor start.
    Unfenced "i-4-unfenced" ["I-4"],
    /// I-5: a change of the catalog does not demand the revision it was decided on.
    NoRevision "i-5-no-revision" ["I-5", "I-6", "I-12"],
    /// I-6: a flip is confirmed when one segment covers what all have to.
    AnySegment "i-6-any-segment" ["I-6"],
    /// I-6: the old version is not held while it is measured.
    NoHold "i-6-no-hold" ["I-6", "I-7"],
    /// I-6: a version is flipped to without a verdict.
    Unverified "i-6-unverified" ["I-6"],
    /// I-7: a query does not wait for the position that it names.
    NoWait "i-7-no-wait" ["I-7"],
    /// I-7: a reader does not look for flips that other nodes have made.
    StaleReader "i-7-stale-reader" ["I-7"],
    /// I-8: a version that stands by does not follow.
    NotFollowing "i-8-not-following" ["I-8", "I-11"],
    /// I-9: a version makes the effects of events that another one speaks for.
    EveryVoice "i-9-every-voice" ["I-9"],
    /// I-9: a replay in place makes effects again.
    SpeaksAgain "i-9-speaks-again" ["I-9"],
    /// I-9: a version does not wait for the effects that come before its own in their streams.
    AnyOrder "i-9-any-order" ["I-9"],
    /// A replay in place is over when one segment is where it was.
    EndsEarly "replay-ends-early" ["replay"],
    /// I-10: a segment is taken from a member that lives.
    Takes "i-10-takes" ["I-10"],
    /// I-10: the segments of a member whose lease has ended are left to it.
    Left "i-10-left" ["I-10"],
    /// I-10: nobody hands over what is another one's.
    Keeps "i-10-keeps" ["I-11"],
    /// I-11: an event that is set aside gets no letter.
    NoLetter "i-11-no-letter" ["I-3", "I-11"],
    /// I-11: a version says nothing of what keeps it.
    Silent "i-11-silent" ["I-11"],
    /// A view of another history is taken for one of this.
    NotCompared "parted-not-compared" ["parted"],
    /// I-12: a view is dropped while its epochs are good.
    NotRevoked "i-12-not-revoked" ["I-12"],
    /// I-12: the numbers of obsolete versions are given again.
    NumberAgain "i-12-number-again" ["I-12"],
}

#[cfg(feature = "planted")]
static CHOSEN: std::sync::OnceLock<Fault> = std::sync::OnceLock::new();

/// Activates `fault` in this process from here on. The first choice stands.
#[cfg(feature = "planted")]
pub fn choose(fault: Fault) {
    CHOSEN.get_or_init(|| fault);
}

/// Returns true if `fault` is active.
#[cfg(feature = "planted")]
pub fn is(fault: Fault) -> bool {
    CHOSEN.get() == Some(&fault)
}

/// Returns true if `fault` is active: never, in this build.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Fault) -> bool {
    false
}
