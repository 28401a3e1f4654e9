//! Exact addition and subtraction, digit by digit.
//!
//! Both numbers are laid over one row of decimal digits that spans from the higher first digit (and one for the carry)
//! to the lower last digit; nothing is rounded. A result that needs more than 38 digits is refused, as DynamoDB does.

use super::{Decimal, MAGNITUDE_MAX, MAGNITUDE_MIN, NUMBER_DIGITS_MAX, Number};
use crate::ItemError;

/// From the digit above the largest number to the last digit of the smallest.
const ROW_DIGITS: usize = (MAGNITUDE_MAX - MAGNITUDE_MIN) as usize + NUMBER_DIGITS_MAX + 2;

impl Number {
    /// The exact sum.
    ///
    /// # Errors
    /// The sum is out of range or needs more than 38 significant digits.
    pub fn checked_add(self, other: Number) -> Result<Number, ItemError> {
        sum(self.decimal(), other.decimal())
    }

    /// The exact difference.
    ///
    /// # Errors
    /// The difference is out of range or needs more than 38 significant digits.
    pub fn checked_sub(self, other: Number) -> Result<Number, ItemError> {
        let mut other = other.decimal();
        other.negative = !other.negative;
        sum(self.decimal(), other)
    }
}

impl std::ops::Neg for Number {
    type Output = Number;

    fn neg(self) -> Number {
        let decimal = self.decimal();
        Number::from_decimal(
            !decimal.negative,
            decimal.magnitude,
            &decimal.digits[..decimal.count],
        )
        .expect("the range of numbers is symmetric")
    }
}

fn sum(left: Decimal, right: Decimal) -> Result<Number, ItemError> {
    if left.count == 0 || right.count == 0 {
        let other = if left.count == 0 { right } else { left };
        return Number::from_decimal(other.negative, other.magnitude, &other.digits[..other.count]);
    }
    // The first cell is the digit above both numbers, for the carry.
    let top = left.magnitude.max(right.magnitude) + 1;
    let bottom = (left.magnitude - left.count as i64).min(right.magnitude - right.count as i64) + 1;
    let cells = (top - bottom + 1) as usize;
    let mut row = [0_i8; ROW_DIGITS];
    let row = &mut row[..cells];
    for decimal in [&left, &right] {
        let start = (top - decimal.magnitude) as usize;
        let sign = if decimal.negative { -1 } else { 1 };
        for (cell, digit) in row[start..].iter_mut().zip(&decimal.digits[..decimal.count]) {
            *cell += sign * *digit as i8;
        }
    }
    // The first cell that is not 0 has the sign of the sum, once borrowing is done in that sign.
    let negative = row.iter().find(|cell| **cell != 0).is_some_and(|cell| *cell < 0);
    let mut carry = 0_i8;
    let mut digits = [0_u8; ROW_DIGITS];
    for (cell, digit) in row.iter().zip(&mut digits).rev() {
        let value = if negative { -cell } else { *cell } + carry;
        carry = value.div_euclid(10);
        *digit = value.rem_euclid(10) as u8;
    }
    debug_assert_eq!(carry, 0, "the first cell takes the last carry");
    let digits = &digits[..cells];
    let Some(first) = digits.iter().position(|digit| *digit != 0) else {
        return Ok(Number::ZERO);
    };
    let last = digits
        .iter()
        .rposition(|digit| *digit != 0)
        .expect("a first digit is there");
    Number::from_decimal(negative, top - first as i64, &digits[first..=last])
}
