-- Proxies' requests about buckets, each taken at once: what Redis decides. ledger.rs is the same in Rust, function by
-- function; docs/coordinator.md says why.
--
-- KEYS     the buckets' hashes: "state", "limit" (an operator's), and "m:<member>" for each proxy; a cluster gets one
-- ARGV     channel, then, for tests only, time of day and life, else empty; then for each key: bucket, member, seq, life,
--          stamp, join, fresh, leave, held, claim, want, waiting, limit, expected, lease, fallback, used, waiting clients,
--          round trip
-- Returns  for each key {"taken", clock, quota, target, must, share, hungry, settled, epoch, limit, twin},
--          {"hello", life, clock}, {"unknown"}, {"stale"} or {"failed", why}; an error if all failed

local channel, now, life = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local COMMON, EACH = 3, 19
local min, max, floor = math.min, math.max, math.floor

-- Names of a member's numbers, in the order in which they are written.
local NAMES = {
    'seq', 'held', 'want', 'since', 'lease', 'keep', 'shares', 'lapsed', 'heard', 'fresh', 'got', 'limit', 'lease_ms',
    'used', 'clients', 'trip',
}

local function write_member(member)
    local numbers = {}
    for at, name in ipairs(NAMES) do numbers[at] = string.format('%.0f', member[name]) end
    return table.concat(numbers, ' ')
end

-- Who this Redis is: a restart or a promotion makes it another one.
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
    life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
        .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end

-- One request, and what is written about its bucket.
local key, bucket, id, ask, state, members, ids, operator, written, gone

local function read_request(nth)
    local before = COMMON + (nth - 1) * EACH
    local function number(at) return tonumber(ARGV[before + at]) end
    local function flag(at) return ARGV[before + at] == '1' end
    key, bucket, id = KEYS[nth], ARGV[before + 1], ARGV[before + 2]
    ask = {
        seq = number(3), life = ARGV[before + 4], stamp = number(5), join = flag(6), fresh = flag(7), leave = flag(8),
        held = number(9), claim = flag(10), want = number(11), waiting = number(12), limit = number(13),
        expected = number(14), lease = number(15), fallback = number(16),
        used = number(17), clients = number(18), trip = number(19),
    }
end

local function read_bucket()
    state = { life = '', clock = 0, seen = 0, epoch = 0, settle = 0, strict = 0, unknown = 0, hungry = 0 }
    members, ids, operator, written, gone = {}, {}, nil, {}, {}
    local stored = redis.call('HGETALL', key)
    for at = 1, #stored, 2 do
        local field, value = stored[at], stored[at + 1]
        written[field] = value
        if field == 'state' then
            local words = {}
            for word in string.gmatch(value, '%S+') do words[#words + 1] = word end
            state.life = words[1]
            for nth, name in ipairs({ 'clock', 'seen', 'epoch', 'settle', 'strict', 'unknown', 'hungry' }) do
                state[name] = tonumber(words[nth + 1])
            end
        elseif field == 'limit' then
            operator = tonumber(value)
        elseif string.sub(field, 1, 2) == 'm:' then
            local member, nth = {}, 0
            for word in string.gmatch(value, '%S+') do
                nth = nth + 1
                member[NAMES[nth]] = tonumber(word)
            end
            members[string.sub(field, 3)] = member
        end
    end
end

local function remove(other)
    members[other] = nil
    gone[#gone + 1] = 'm:' .. other
end
local function list()
    ids = {}
    for other in pairs(members) do ids[#ids + 1] = other end
    table.sort(ids)
end

-- Writes what changed.
local function save()
    local fields = {}
    local function field(name, value)
        if written[name] ~= value then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
    field('state', string.format('%s %.0f %.0f %.0f %.0f %.0f %.0f %.0f', state.life, state.clock, state.seen, state.epoch,
        state.settle, state.strict, state.unknown, state.hungry))
    for other, member in pairs(members) do field('m:' .. other, write_member(member)) end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
end

local function hello()
    save()
    return { 'hello', state.life, state.clock }
end

local function name(of) return string.match(of, '^[^/]*') end

-- Nobody is granted anything until everybody has said what it holds, or can hold no more than its share.
local function unsettle(lease)
    state.epoch = state.epoch + 1
    state.settle = state.clock + lease
    for _, member in pairs(members) do member.heard = 0 end
end

local function tick()
    local lease = ask.lease
    for _, member in pairs(members) do lease = min(lease, member.lease_ms) end
    if state.life ~= life then
        state.life = life
        unsettle(lease)
        state.strict = 1
        state.unknown = state.clock + ask.fallback
    else
        -- A jump of the clock counts as the longest time that may pass between two requests.
        local gap, longest = max(0, now - state.seen), floor(lease * 3 / 10)
        state.clock = state.clock + min(gap, longest)
        if gap > longest and next(members) then unsettle(lease) end
    end
    state.seen = now
end

local function expire()
    if state.settle > 0 and state.clock >= state.settle then state.settle, state.strict = 0, 0 end
    for _, other in ipairs(ids) do
        local member = members[other]
        if member.lapsed == 0 and state.clock >= member.lease then
            member.lapsed, member.want, member.since = 1, 0, 0
        end
        if member.lapsed == 1 and (member.shares == 0 or state.clock >= member.keep) then remove(other) end
    end
    list()
end

local function limit_in_force()
    if operator then return operator end
    local lowest = ask.limit
    for _, member in pairs(members) do
        if member.lapsed == 0 then lowest = min(lowest, member.limit) end
    end
    return lowest
end

local function share_of_one()
    if ask.expected == 0 then return 0 end
    return floor(limit_in_force() / ask.expected)
end

-- How many instances have a share, a restarted one and the one before it counted once.
local function sharing_besides(this)
    local count, last = 0, nil
    for _, other in ipairs(ids) do
        local of = name(other)
        if members[other].shares == 1 and of ~= this and of ~= last then count, last = count + 1, of end
    end
    return count
end

local function note()
    local share = share_of_one()
    -- The same instance started anew: what the one before it may have had is its own now.
    for _, other in ipairs(ids) do
        if other ~= id and name(other) == name(id) and members[other].lapsed == 1 then remove(other) end
    end
    list()
    local sharing = sharing_besides(name(id))
    local member = members[id] or { held = 0, lapsed = 0, got = 0 }
    members[id] = member
    member.shares = sharing < ask.expected and 1 or 0
    if member.shares == 0 then share = 0 end
    local before = member.lapsed == 1 and share or max(member.held, share)
    member.held = state.settle > 0 and ask.held or min(ask.held, before)
    if ask.claim then member.held = max(member.held, share) end
    member.lapsed, member.seq, member.want = 0, ask.seq, ask.want
    member.since = ask.waiting > 0 and max(1, state.clock - ask.waiting) or 0
    member.lease, member.keep = state.clock + ask.lease, state.clock + ask.fallback
    member.heard, member.fresh = 1, ask.fresh and 1 or 0
    member.limit, member.lease_ms = ask.limit, ask.lease
    member.used, member.clients, member.trip = ask.used, ask.clients, ask.trip
end

local function settle_if_all_are_known()
    if state.settle == 0 then return end
    local names, all = 0, true
    for at, other in ipairs(ids) do
        local member = members[other]
        if state.strict == 1 then
            -- A first start: as many as there can be, and none was there before.
            all = all and member.heard == 1 and member.fresh == 1
        else
            all = all and (member.heard == 1 or member.lapsed == 1)
        end
        if at == 1 or name(other) ~= name(ids[at - 1]) then names = names + 1 end
    end
    if state.strict == 1 then all = all and ask.expected > 0 and names >= ask.expected end
    if all then state.settle, state.strict = 0, 0 end
end

-- Sorts entries whose first numbers decide, then their member.
local function sort(entries)
    table.sort(entries, function(one, other)
        for at = 1, #one do
            if one[at] ~= other[at] then return one[at] < other[at] end
        end
        return false
    end)
end

local function waits_since(member) return member.since == 0 and 9e15 or member.since end

-- Everybody's fair part of the room: nobody gets more than it wants, and whoever wants more has as much as any other.
-- What cannot be divided stays with those who have it; where there is less than one for each, it goes round, after a
-- turn to who had it least recently.
local function fair_parts(living, room)
    local wants = {}
    for _, other in ipairs(living) do wants[#wants + 1] = min(members[other].want, room) end
    table.sort(wants)
    local rest, left, level = room, #wants, room
    for _, want in ipairs(wants) do
        if want * left > rest then
            level = floor(rest / left)
            break
        end
        rest, left = rest - want, left - 1
    end
    local fair, more, given = {}, {}, 0
    for _, other in ipairs(living) do
        local member = members[other]
        local want = min(member.want, room)
        fair[other] = min(want, level)
        given = given + fair[other]
        if want > level then
            local stays = level > 0 or state.clock < member.got + floor(ask.lease / 10)
            local class = member.held <= level and 1 or (stays and 0 or 2)
            more[#more + 1] = { class, level > 0 and waits_since(member) or member.got, other }
        end
    end
    sort(more)
    for at = 1, min(#more, room - given) do fair[more[at][3]] = fair[more[at][3]] + 1 end
    return fair
end

-- Gives free slots to those who want them and have less than their part, one each in turn, who waits longest first.
local function grant(living, free, fair)
    local order, granted = {}, {}
    for _, other in ipairs(living) do
        if members[other].held < fair[other] then order[#order + 1] = { waits_since(members[other]), other } end
    end
    sort(order)
    local given = true
    while free > 0 and given do
        given = false
        for _, entry in ipairs(order) do
            local member = members[entry[2]]
            if free > 0 and member.held < fair[entry[2]] then
                free, given = free - 1, true
                member.held, member.got = member.held + 1, state.clock
                granted[entry[2]] = true
            end
        end
    end
    return granted
end

-- What everybody should come down to so that the needed slots come free: those far above their part first.
local function targets(living, needed, fair)
    local above, down_to = {}, {}
    for _, other in ipairs(living) do
        above[#above + 1] = { -max(0, members[other].held - fair[other]), other }
    end
    sort(above)
    for _, entry in ipairs(above) do
        local asked = min(-entry[1], needed)
        needed = needed - asked
        down_to[entry[2]] = members[entry[2]].held - asked
    end
    return down_to
end

local function deal()
    local limit, share = limit_in_force(), share_of_one()
    local living, kept = {}, 0
    for _, other in ipairs(ids) do
        local member = members[other]
        if member.lapsed == 0 then
            living[#living + 1] = other
        elseif member.shares == 1 then
            kept = kept + share
        end
    end
    if state.clock < state.unknown then kept = kept + share * max(0, ask.expected - sharing_besides(nil)) end
    local room = max(0, limit - kept)
    local fair = fair_parts(living, room)
    local function held()
        local sum = 0
        for _, other in ipairs(living) do sum = sum + members[other].held end
        return sum
    end
    local granted = {}
    if state.settle == 0 then granted = grant(living, max(0, room - held()), fair) end
    local deficit, missing = max(0, held() - room), 0
    for _, other in ipairs(living) do
        local member = members[other]
        missing = missing + max(0, min(fair[other], member.want) - member.held)
    end
    local was_hungry = state.hungry
    state.hungry = missing > 0 and 1 or 0
    -- While nothing can be granted, nobody makes room for it.
    local must = targets(living, deficit, fair)
    local target = targets(living, deficit + (state.settle == 0 and missing or 0), fair)
    local begins = state.hungry == 1 and was_hungry == 0
    local woken = {}
    for _, other in ipairs(living) do
        local member = members[other]
        if other ~= id and (begins or target[other] < member.held or granted[other]) then
            woken[#woken + 1] = string.format('%s %.0f %.0f', other, member.held, target[other])
        end
    end
    if #woken > 0 then
        local text = bucket .. '\n' .. state.hungry .. '\n' .. table.concat(woken, '\n')
        redis.call('PUBLISH', channel, text)
    end
    save()
    local member = members[id]
    if not member then return { 'unknown' } end
    local quota = member.held
    if ask.claim and (deficit > 0 or state.settle > 0) then quota = min(ask.held, member.held) end
    local twin = 0
    for _, other in ipairs(living) do
        if other ~= id and name(other) == name(id) then twin = 1 end
    end
    return {
        'taken', state.clock, quota, min(target[id], quota), min(must[id], quota),
        member.shares == 1 and share or 0, state.hungry, state.settle == 0 and 1 or 0, state.epoch, limit, twin,
    }
end

local function sync(nth)
    read_request(nth)
    read_bucket()
    list()
    tick()
    expire()
    if ask.life ~= life then return hello() end
    if state.clock > ask.stamp + ask.lease then return hello() end
    local known = members[id]
    if known and ask.seq <= known.seq then
        save()
        return { 'stale' }
    end
    if not known and not ask.join then
        save()
        return { 'unknown' }
    end
    if ask.leave then
        if known then remove(id) end
    else
        note()
    end
    list()
    settle_if_all_are_known()
    return deal()
end

-- What is wrong with one bucket is not the others' concern.
local answers, failed, first = {}, 0, nil
for nth = 1, #KEYS do
    local good, answer = pcall(sync, nth)
    if not good then
        local why = type(answer) == 'table' and answer.err or tostring(answer)
        failed, first, answer = failed + 1, first or why, { 'failed', why }
    end
    answers[nth] = answer
end
if failed == #KEYS then return redis.error_reply(first) end
return answers
