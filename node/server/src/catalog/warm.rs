//! Warm throughput: what a table or a global index could take at once in the live service. Recorded and described; nothing is throttled
//! or made ready by it.
//!
//! There always is some: 12,000 reads and 4,000 writes a second on demand, else the provisioned units. What is asked for comes on top,
//! and it never decreases: neither by a request, nor with the provisioned units, nor by another way of paying. In the entry of a
//! table (see `settings`) and of an index (see `index`), absent while the billing alone explains it:
//!
//! ```text
//! Warm  M  {Read N, Write N}: the greatest so far, in units a second
//! ```

use cairn_item::{Attribute, Value, ValueView};

use super::definition::{Billing, as_u64, attribute, number};
use crate::api::ApiError;

/// What a table on demand begins with.
const ON_DEMAND: Warm = Warm {
    read: 12_000,
    write: 4_000,
};

/// Warm throughput in units a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Warm {
    /// `ReadUnitsPerSecond`
    pub read: u64,
    /// `WriteUnitsPerSecond`
    pub write: u64,
}

impl Warm {
    /// What a table or an index has by the way that the table is paid for; `units` are its own (read, write).
    pub(super) fn of_billing(billing: Billing, units: (u64, u64)) -> Warm {
        match billing {
            Billing::OnDemand => ON_DEMAND,
            Billing::Provisioned { .. } => Warm {
                read: units.0,
                write: units.1,
            },
        }
    }

    /// The greater of each.
    #[must_use]
    pub(super) fn max(self, other: Warm) -> Warm {
        Warm {
            read: self.read.max(other.read),
            write: self.write.max(other.write),
        }
    }

    /// What has to be recorded of it where the billing gives `floor`: nothing if that is enough.
    #[must_use]
    pub(super) fn beyond(self, floor: Warm) -> Warm {
        if self.max(floor) == floor {
            Warm::default()
        } else {
            self
        }
    }

    /// `Warm`, when there is something recorded.
    pub(super) fn attribute(self) -> Option<Attribute> {
        if self == Warm::default() {
            return None;
        }
        let members = vec![
            attribute("Read", number(self.read)),
            attribute("Write", number(self.write)),
        ];
        Some(attribute("Warm", Value::map(members)))
    }

    /// Reads it back.
    pub(super) fn from_attribute(value: Option<ValueView<'_>>) -> Option<Warm> {
        match value {
            None => Some(Warm::default()),
            Some(ValueView::M(warm)) => Some(Warm {
                read: as_u64(warm.get("Read")?)?,
                write: as_u64(warm.get("Write")?)?,
            }),
            Some(_) => None,
        }
    }
}

/// `WarmThroughput` of a request; a member that is not given stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WarmRequest {
    pub read: Option<i64>,
    pub write: Option<i64>,
}

impl WarmRequest {
    /// Both, with DynamoDB's names.
    pub(crate) fn members(self) -> [(&'static str, Option<i64>); 2] {
        [
            ("ReadUnitsPerSecond", self.read),
            ("WriteUnitsPerSecond", self.write),
        ]
    }

    /// Whether nothing is asked for.
    pub(crate) fn is_none(self) -> bool {
        self == WarmRequest::default()
    }

    /// The member that asks for less than `least`, by its place among [`WarmRequest::members`].
    fn below(self, least: Warm) -> Option<usize> {
        let least = [least.read, least.write];
        let mut members = self.members().into_iter().zip(least);
        members.position(|((_, given), least)| {
            given.is_some_and(|units| u64::try_from(units).map_or(true, |units| units < least))
        })
    }

    fn over(self, current: Warm) -> Warm {
        let units = |given: Option<i64>, current| given.map_or(current, i64::unsigned_abs);
        Warm {
            read: units(self.read, current.read),
            write: units(self.write, current.write),
        }
    }

    fn refused(self, place: usize, of: &str, why: &str) -> ApiError {
        let (name, _) = self.members()[place];
        ApiError::parameters(format!("Requested {name} for WarmThroughput for {of} is {why}"))
    }

    /// What is recorded of a new table or index ("table" or "index NAME").
    ///
    /// # Errors
    /// It asks for less than what there is anyway.
    pub(crate) fn of_new(self, of: &str, billing: Billing, units: (u64, u64)) -> Result<Warm, ApiError> {
        let floor = Warm::of_billing(billing, units);
        let Some(place) = self.below(floor) else {
            return Ok(self.over(floor).beyond(floor));
        };
        let why = match billing {
            Billing::OnDemand => {
                "lower than initial throughput for OnDemand. See: \
                 https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html#on-demand-capacity-mode-initial"
                    .to_owned()
            }
            Billing::Provisioned { .. } => {
                let units = ["ReadCapacityUnits", "WriteCapacityUnits"][place];
                format!("lower than {units} of ProvisionedThroughput")
            }
        };
        Err(self.refused(place, of, &why))
    }

    /// What becomes of what there is.
    ///
    /// # Errors
    /// It asks for less.
    pub(super) fn raise(self, of: &str, current: Warm) -> Result<Warm, ApiError> {
        match self.below(current) {
            None => Ok(self.over(current)),
            Some(place) => Err(self.refused(
                place,
                of,
                "lower than current WarmThroughput, decreasing WarmThroughput is not supported",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_item::{Item, ItemView};

    #[test]
    fn it_survives_its_attribute_and_nothing_else_is_read() {
        let read_back = |attributes: Vec<Attribute>| {
            let bytes = cairn_item::archive(&Item::from_attributes(attributes));
            Warm::from_attribute(ItemView::validate(&bytes).unwrap().get("Warm"))
        };
        for warm in [Warm::default(), Warm { read: 0, write: 7 }, ON_DEMAND] {
            assert_eq!(read_back(warm.attribute().into_iter().collect()), Some(warm));
        }
        let half = Value::map(vec![attribute("Read", number(1))]);
        for wrong in [half, number(1)] {
            assert_eq!(read_back(vec![attribute("Warm", wrong)]), None);
        }
    }

    #[test]
    fn only_what_the_billing_does_not_explain_is_recorded() {
        let floor = Warm { read: 5, write: 5 };
        assert_eq!(Warm { read: 5, write: 4 }.beyond(floor), Warm::default());
        let more = Warm { read: 1, write: 6 };
        assert_eq!(more.beyond(floor), more);
        assert_eq!(more.max(floor), Warm { read: 5, write: 6 });
    }
}
