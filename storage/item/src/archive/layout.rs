//! The archived types and the one place that follows their pointers.

#![expect(
    unsafe_code,
    reason = "relative pointers of an rkyv archive; see the SAFETY comments"
)]

use std::marker::PhantomData;

use rkyv::Portable;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Fallible, Source};
use rkyv::validation::{ArchiveContext, ArchiveContextExt};

/// Bytes that stand in a name or in a value's payload instead of behind a pointer.
pub(super) const INLINE_BYTES: usize = 6;
/// Pads text shorter than [`INLINE_BYTES`]; never part of UTF-8.
pub(super) const TEXT_PAD: u8 = 0xFE;
/// First byte of a name that stands elsewhere; never part of UTF-8.
pub(super) const NAME_ELSEWHERE: u8 = 0xFF;
/// Size of an archived value in a row.
pub(super) const VALUE_BYTES: usize = 7;
/// Size of an archived attribute in a row.
pub(super) const ATTRIBUTE_BYTES: usize = 13;

const _: () = assert!(size_of::<ArchivedValue>() == VALUE_BYTES && align_of::<ArchivedValue>() == 1);
const _: () =
    assert!(size_of::<ArchivedAttribute>() == ATTRIBUTE_BYTES && align_of::<ArchivedAttribute>() == 1);
const _: () = assert!(size_of::<ArchivedItem>() == INLINE_BYTES && align_of::<ArchivedItem>() == 1);

/// `length` elements of `T` that start `distance` bytes before the span.
///
/// Neither `Clone` nor `Copy`: a span means something only where it stands.
#[derive(Portable)]
#[repr(C)]
pub(super) struct Span<T> {
    distance: [u8; 3],
    length: [u8; 3],
    elements: PhantomData<T>,
}

impl<T> Span<T> {
    pub(super) fn len(&self) -> usize {
        u24(self.length)
    }

    /// Whether the six bytes are the only form of their meaning.
    pub(super) fn is_canonical(&self) -> bool {
        self.len() > 0 || self.distance == [0; 3]
    }

    pub(super) fn as_slice(&self) -> &[T] {
        const { assert!(align_of::<T>() == 1) };
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: a `&Span` comes from an archive that `CheckBytes` accepted, so the range lies in the same buffer,
        // before this span, and its elements are valid; the alignment of `T` is 1 and the buffer outlives the borrow.
        unsafe {
            let start = std::ptr::from_ref(self)
                .cast::<u8>()
                .sub(u24(self.distance))
                .cast::<T>();
            std::slice::from_raw_parts(start, self.len())
        }
    }
}

/// A name, in itself or elsewhere.
#[derive(Portable)]
#[repr(transparent)]
pub(super) struct ArchivedName([u8; INLINE_BYTES]);

impl ArchivedName {
    pub(super) fn is_inline(&self) -> bool {
        self.0[0] != NAME_ELSEWHERE
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        if self.is_inline() {
            return unpadded(&self.0, TEXT_PAD);
        }
        let (distance, length) = self.elsewhere();
        // SAFETY: as in `Span::as_slice`; `CheckBytes` of this type checks the range.
        unsafe {
            let start = std::ptr::from_ref(self).cast::<u8>().sub(distance);
            std::slice::from_raw_parts(start, length)
        }
    }

    fn elsewhere(&self) -> (usize, usize) {
        let [_, near, middle, far, low, high] = self.0;
        (
            u24([near, middle, far]),
            usize::from(u16::from_le_bytes([low, high])),
        )
    }
}

/// One value; the tag is the discriminant.
#[expect(dead_code, reason = "never constructed: the writer lays down the bytes")]
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck, bounds(__C: ArchiveContext, <__C as Fallible>::Error: Source))]
#[repr(u8)]
pub(super) enum ArchivedValue {
    Null([u8; INLINE_BYTES]),
    False([u8; INLINE_BYTES]),
    True([u8; INLINE_BYTES]),
    ShortS([u8; INLINE_BYTES]),
    S(Span<u8>),
    ShortN([u8; INLINE_BYTES]),
    N(Span<u8>),
    ShortB([u8; INLINE_BYTES]),
    B(Span<u8>),
    Ss(#[bytecheck(omit_bounds)] Span<ArchivedValue>),
    Ns(#[bytecheck(omit_bounds)] Span<ArchivedValue>),
    Bs(#[bytecheck(omit_bounds)] Span<ArchivedValue>),
    L(#[bytecheck(omit_bounds)] Span<ArchivedValue>),
    M(#[bytecheck(omit_bounds)] Span<ArchivedAttribute>),
}

/// A name and its value.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck, bounds(__C: ArchiveContext, <__C as Fallible>::Error: Source))]
#[repr(C)]
pub(super) struct ArchivedAttribute {
    pub(super) name: ArchivedName,
    #[bytecheck(omit_bounds)]
    pub(super) value: ArchivedValue,
}

/// The root.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck, bounds(__C: ArchiveContext, <__C as Fallible>::Error: Source))]
#[repr(C)]
pub(super) struct ArchivedItem {
    #[bytecheck(omit_bounds)]
    pub(super) attributes: Span<ArchivedAttribute>,
}

// SAFETY: accepts a span only when `in_subtree` has found its whole range inside the bytes not claimed so far and when
// every element in it is accepted. Any six bytes are an initialised `Span`, whose alignment is 1.
unsafe impl<T, C> CheckBytes<C> for Span<T>
where
    T: CheckBytes<C>,
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    unsafe fn check_bytes(value: *const Self, context: &mut C) -> Result<(), C::Error> {
        // SAFETY: the caller has checked that `value` points to six bytes inside the archive.
        let (distance, length) = unsafe { (u24((*value).distance), u24((*value).length)) };
        if length == 0 {
            return Ok(());
        }
        let start = value.cast::<u8>().wrapping_sub(distance).cast::<T>();
        let elements = std::ptr::slice_from_raw_parts(start, length);
        context.in_subtree(elements, |context| {
            for index in 0..length {
                // SAFETY: `in_subtree` has checked that all `length` elements are inside the archive.
                unsafe { T::check_bytes(start.add(index), context)? };
            }
            Ok(())
        })
    }
}

// SAFETY: an inline name is plain bytes; another is accepted only when `in_subtree` has found its range inside.
unsafe impl<C> CheckBytes<C> for ArchivedName
where
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    unsafe fn check_bytes(value: *const Self, context: &mut C) -> Result<(), C::Error> {
        // SAFETY: the caller has checked that `value` points to six bytes inside the archive.
        let name = unsafe { &*value };
        if name.is_inline() {
            return Ok(());
        }
        let (distance, length) = name.elsewhere();
        let start = value.cast::<u8>().wrapping_sub(distance);
        context.in_subtree(std::ptr::slice_from_raw_parts(start, length), |_| Ok(()))
    }
}

/// The root of bytes that were validated.
///
/// # Safety
/// `bytes` must have passed [`super::ItemView::validate`], unchanged since.
pub(super) unsafe fn root_unchecked(bytes: &[u8]) -> &ArchivedItem {
    // SAFETY: the caller's promise is what rkyv asks for.
    unsafe { rkyv::access_unchecked::<ArchivedItem>(bytes) }
}

fn u24([low, middle, high]: [u8; 3]) -> usize {
    u32::from_le_bytes([low, middle, high, 0]) as usize
}

/// The bytes before the padding at the end.
pub(super) fn unpadded(bytes: &[u8; INLINE_BYTES], pad: u8) -> &[u8] {
    let length = bytes
        .iter()
        .rposition(|byte| *byte != pad)
        .map_or(0, |last| last + 1);
    &bytes[..length]
}
