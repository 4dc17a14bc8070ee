//! The nodes of services' trees (ReDiR, RFC 7374), and where they are stored.

use std::{fmt, str::FromStr};

use super::{NameError, Position, ServiceUri, text_serde};

/// Into how many intervals a tree node divides its range; each has a node of its own one level below.
///
/// RFC 7374 §4.1 leaves it open (its default is 10). Two makes as many nodes as there are providers whatever their number
/// is, and a level for any number of them, so that their load is spread as far as it can be; the price is a few more nodes
/// to read for whoever wants many providers.
pub const BRANCHING: u64 = 2;

/// The deepest level of a tree: enough for a million providers.
pub const MAX_LEVEL: u8 = 24;

/// How many nodes a level has: none overflows, or this would not compile.
const WIDTHS: [u64; MAX_LEVEL as usize + 2] = {
    let mut widths = [1; MAX_LEVEL as usize + 2];
    let mut level = 1;
    while level < widths.len() {
        widths[level] = widths[level - 1] * BRANCHING;
        level += 1;
    }
    widths
};

/// A node of the tree in which the providers of a service are listed (ReDiR, RFC 7374 §4.1).
///
/// The nodes of a level divide the identifier space among them: node `(level, index)` lists providers whose positions
/// lie in the `index`th part. Of each level, those whose interval is theirs alone or who are the first or last in it are
/// listed, so a node never has many entries, and a reader need not begin at the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeNode {
    level: u8,
    index: u32,
}

impl TreeNode {
    /// The node that covers the whole space.
    pub const ROOT: Self = Self { level: 0, index: 0 };

    /// The node of a level, at the most [`MAX_LEVEL`], whose range the position lies in.
    pub fn containing(level: u8, position: &Position) -> Self {
        Self::at(level, position.leading())
    }

    /// The node of a level, at the most [`MAX_LEVEL`], whose range begins with these 64 bits or encloses them.
    pub fn at(level: u8, leading: u64) -> Self {
        let level = level.min(MAX_LEVEL);
        Self { level, index: u32::try_from(part(leading, width(level))).unwrap_or(u32::MAX) }
    }

    /// How far below the root it is.
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Its place in its level, from 0.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Whether a position lies in its range: only providers there may be listed.
    pub fn contains(self, position: &Position) -> bool {
        Self::containing(self.level, position) == self
    }

    /// In which of its [`BRANCHING`] intervals a position of its range lies, as the node of the interval.
    pub fn interval_of(self, position: &Position) -> Interval {
        Interval(part(position.leading(), width(self.level.saturating_add(1))))
    }

    /// The node above; `None` for the root.
    pub fn parent(self) -> Option<Self> {
        let level = self.level.checked_sub(1)?;
        Some(Self { level, index: (u64::from(self.index) / BRANCHING) as u32 })
    }

    /// The node below that divides an interval of this one; `None` on the deepest level.
    pub fn child(self, interval: Interval) -> Option<Self> {
        let level = self.level.checked_add(1).filter(|level| *level <= MAX_LEVEL)?;
        Some(Self { level, index: u32::try_from(interval.0).ok()? })
    }

    /// Where the node's entries live in the overlay.
    ///
    /// RFC 7374 §4.1 hashes namespace, level and index, by which the nodes of a level come to lie like thrown dice, and
    /// some member stores several of them. Here only namespace and level are hashed, and the index goes into the leading
    /// bits, so that they lie evenly, and with them the load.
    pub fn position(self, namespace: &ServiceUri) -> Position {
        let mut octets = *Position::of_name(&format!("{namespace}#{}", self.level)).octets();
        // The first point of the node's range, rounded up.
        let first = (u128::from(self.index) << 64).div_ceil(u128::from(width(self.level))) as u64;
        for (octet, add) in octets.iter_mut().zip(first.to_be_bytes()) {
            *octet ^= add;
        }
        Position::from_octets(octets)
    }
}

/// One of a tree node's intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

/// How many nodes the level has.
fn width(level: u8) -> u64 {
    WIDTHS.get(usize::from(level)).copied().unwrap_or(u64::MAX)
}

/// In which of so many equal parts of the space a position lies that begins with these bits.
fn part(leading: u64, parts: u64) -> u64 {
    ((u128::from(leading) * u128::from(parts)) >> 64) as u64
}

/// `LEVEL/INDEX`.
impl fmt::Display for TreeNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.index)
    }
}

/// A tree node of one service: what a service record is stored under. Written `turn:p2psip.org#9/311`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceNode {
    service: ServiceUri,
    node: TreeNode,
}

impl ServiceNode {
    /// A node of the tree of `service`.
    pub const fn new(service: ServiceUri, node: TreeNode) -> Self {
        Self { service, node }
    }

    /// Parses `URI#LEVEL/INDEX`, in decimal digits.
    ///
    /// # Errors
    /// [`NameError::Service`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Service {
            text: text.to_owned(),
            why: "its tree node is not LEVEL/INDEX, a level of the tree and a place in it",
        };
        let (service, node) = text.split_once('#').ok_or_else(error)?;
        let service = ServiceUri::parse(service)?;
        let (level, index) = node.split_once('/').ok_or_else(error)?;
        let number = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse::<u32>().ok().filter(|_| canonical).ok_or_else(error)
        };
        let level = u8::try_from(number(level)?).ok().filter(|level| *level <= MAX_LEVEL).ok_or_else(error)?;
        let index = number(index)?;
        if u64::from(index) >= width(level) {
            return Err(error());
        }
        Ok(Self { service, node: TreeNode { level, index } })
    }

    /// The service.
    pub const fn service(&self) -> &ServiceUri {
        &self.service
    }

    /// The node of its tree.
    pub const fn node(&self) -> TreeNode {
        self.node
    }

    /// Where its records live: see [`TreeNode::position`].
    pub fn position(&self) -> Position {
        self.node.position(&self.service)
    }
}

impl fmt::Display for ServiceNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}#{}", self.service, self.node))
    }
}

impl FromStr for ServiceNode {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

text_serde!(ServiceNode);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn() -> ServiceUri {
        ServiceUri::parse("turn:p2psip.org").unwrap()
    }

    /// A position that begins with four bits, as in the examples of RFC 7374, where identifiers have no more.
    fn four_bits(bits: u8) -> Position {
        let mut octets = [0; 32];
        octets[0] = bits << 4;
        Position::from_octets(octets)
    }

    #[test]
    fn the_nodes_of_a_level_divide_the_space() {
        let nodes = |bits| [0, 1, 2, 3].map(|level| TreeNode::containing(level, &four_bits(bits)).index());
        assert_eq!(nodes(2), [0, 0, 0, 1]);
        assert_eq!(nodes(7), [0, 0, 1, 3]);
        assert_eq!(nodes(10), [0, 1, 2, 5]);
        assert_eq!(nodes(15), [0, 1, 3, 7]);
        let node = TreeNode::containing(2, &four_bits(7));
        assert!(node.contains(&four_bits(4)) && !node.contains(&four_bits(3)) && !node.contains(&four_bits(8)));
        assert_ne!(node.interval_of(&four_bits(4)), node.interval_of(&four_bits(7)));
        assert_eq!(node.interval_of(&four_bits(6)), node.interval_of(&four_bits(7)));
        assert_eq!(node.to_string(), "2/1");
    }

    #[test]
    fn a_name_has_one_spelling() {
        let name = ServiceNode::parse("TURN:P2PSIP.org#9/311").unwrap();
        assert_eq!(name.to_string(), "turn:p2psip.org#9/311");
        assert_eq!((name.node().level(), name.node().index(), name.service()), (9, 311, &turn()));
        for wrong in ["#9/512", "#25/0", "#09/1", "#9/+1", "#9", "#/", "#9/-1", "#0/1", "", "#1/1/1", "#1/1#1/1"] {
            let error = ServiceNode::parse(&format!("turn:p2psip.org{wrong}")).unwrap_err();
            assert!(matches!(error, NameError::Service { .. }), "{wrong}");
        }
        assert!(ServiceNode::parse("sip:alice@p2psip.org#1/1").is_err());
    }

    #[test]
    fn the_nodes_of_a_level_lie_evenly_and_those_of_other_levels_and_services_elsewhere() {
        let at = |service: &ServiceUri, level, index: u32| TreeNode { level, index }.position(service);
        for level in [1, 3, 6] {
            let mut cells: Vec<_> = (0..1 << level).map(|i| at(&turn(), level, i).leading() >> (64 - level)).collect();
            cells.sort_unstable();
            assert_eq!(cells, (0..1 << level).collect::<Vec<u64>>());
        }
        let proxy = ServiceUri::parse("sip:p2psip.org").unwrap();
        assert_ne!(at(&turn(), 0, 0), at(&proxy, 0, 0));
        assert_ne!(at(&turn(), 0, 0), at(&turn(), 1, 0));
    }

    /// Members of an overlay have to agree about it: what fails here breaks the overlay.
    #[test]
    fn the_positions_stay_as_they_are() {
        let name = |text| ServiceNode::parse(text).unwrap().position().to_string();
        let level_2 = Position::of_name("turn:p2psip.org#2").to_string();
        assert_eq!(name("turn:p2psip.org#2/0"), level_2);
        assert_eq!(name("turn:p2psip.org#2/3")[1..], level_2[1..]);
        assert_ne!(name("turn:p2psip.org#2/3")[..1], level_2[..1]);
    }

    proptest! {
        #[test]
        fn every_position_lies_in_one_node_of_each_level_and_below_it(octets: [u8; 32], level in 0..=MAX_LEVEL) {
            let position = Position::from_octets(octets);
            let node = TreeNode::containing(level, &position);
            prop_assert!(node.contains(&position));
            match node.child(node.interval_of(&position)) {
                Some(child) => {
                    prop_assert!(child.contains(&position));
                    prop_assert_eq!(child.parent(), Some(node));
                }
                None => prop_assert_eq!(level, MAX_LEVEL),
            }
            let name = ServiceNode::new(turn(), node);
            prop_assert_eq!(&ServiceNode::parse(&name.to_string()).unwrap(), &name);
        }
    }
}
