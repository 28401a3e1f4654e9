# Sorts the samples of `perf script` into areas. A kernel sample belongs to the system call's purpose, found in its
# chain; a user sample to the module of the function that ran, and what libc copied or compared to itself.
BEGIN { RS = ""; FS = "\n" }
{
    samples++
    split($2, leaf, " ")
    symbol = $2
    sub(/^[ \t]*[0-9a-f]+ /, "", symbol)
    kernel = leaf[1] ~ /^ffff/
    if (kernel) {
        if ($0 ~ /tcp_sendmsg|io_send|io_req_task_complete|tcp_v4_rcv|net_rx_action/) area = "kernel: network, sending (and the loopback receiving)"
        else if ($0 ~ /tcp_recvmsg|io_recv|io_poll/) area = "kernel: network, receiving"
        else if ($0 ~ /ext4|xfs|blk_|virtio|vring|io_write|io_read|submit_bio|fsync|iowrite16/) area = "kernel: drive"
        else if ($0 ~ /page_fault|clear_page/) area = "kernel: page faults"
        else area = "kernel: ring, scheduling, rest"
    }
    else if (symbol ~ /^cairn_item::json/) area = "DynamoDB JSON, read and written"
    else if (symbol ~ /^cairn::http|^httparse|crc32/) area = "HTTP head and response"
    else if (symbol ~ /^cairn::sigv4|aws_lc|sha256|SHA256/) area = "signature"
    else if (symbol ~ /^cairn_protocol|^cairn::native/) area = "native frames and session"
    else if (symbol ~ /^cairn::(api|route|catalog|node|metrics)|^<cairn::|^cairn_expression/) area = "validation, catalog, routing"
    else if (symbol ~ /engine::log|engine::record|xxh/) area = "log: batches and checksums"
    else if (symbol ~ /^cairn_engine::tree|BTreeMap/) area = "memtable, cache, segments"
    else if (symbol ~ /^cairn_engine|cairn_engine::/) area = "engine: propose, commit, apply"
    else if (symbol ~ /^cairn_item|bytecheck|rkyv|from_utf8/) area = "item archive: validate, build, size"
    else if (symbol ~ /mi_|malloc|free/) area = "allocator"
    else if (symbol ~ /mem(move|cmp|cpy|set)|bcmp/) area = "libc: copies and comparisons"
    else if (symbol ~ /cairn_runtime|glommio|alloc::task|io_uring|vdso|syscall|clock_gettime/) area = "runtime: tasks, ring, clock"
    else area = "other user code"
    count[area]++
}
END {
    for (area in count) printf "%5.1f %%  %5.2f us  %s\n", 100 * count[area] / samples, us * count[area] / samples, area | "sort -rn"
}
